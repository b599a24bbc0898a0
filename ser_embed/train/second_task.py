"""A second task for a head while it trains: the speakers' gender, learnt beside the emotion.

Multi-task learning (Caruana 1997, Machine Learning 28). A linear layer on the input of the head's
output layer does the task; it is dropped when training ends, and a head's file has nothing of it.

A speaker-adversarial task was tried and left out: on made-up data with a reversed gradient (Ganin
et al. 2016) speakers lay farther apart in what a head makes of them than without, and with
confusion (Tzeng et al. 2015) about as far.
"""

from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from ser_embed.errors import HeadError

__all__ = ["SecondTask", "SecondTaskName", "second_task_of"]

SecondTaskName = Literal["none", "gender"]


class SecondTask(nn.Module):
    """A linear layer on what a head makes of its clips.

    Args:
        head: Has a linear layer `output`, whose input is listened to.
        targets: Class of each clip in the task, int64 (N,); -1 where it isn't known.
        weight: Of its loss beside the head's.
        seed: Of the layer's weights.
    """

    targets: torch.Tensor

    def __init__(self, head: nn.Module, targets: np.ndarray, weight: float, seed: int) -> None:
        super().__init__()
        output: Any = head.output
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layer = nn.Linear(output.in_features, int(targets.max()) + 1)
        self.weight = weight
        self.register_buffer("targets", torch.as_tensor(targets), persistent=False)
        self._made: torch.Tensor | None = None
        self._hook = output.register_forward_pre_hook(self._listen)

    def _listen(self, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._made = inputs[0]

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the weighted cross-entropy over the clips that the head has just seen.

        Args:
            rows: Their numbers, (B,); those whose class isn't known count nothing.
        """
        assert self._made is not None
        targets = self.targets[rows.to(self.targets.device)]
        told = self.layer(self._made.float())  # (B, W) -> (B, classes of the task)
        summed = F.cross_entropy(told, targets, ignore_index=-1, reduction="sum")
        return self.weight * summed / (targets >= 0).sum().clamp_min(1)

    def close(self) -> None:
        """Listen no longer."""
        self._hook.remove()


def second_task_of(
    name: SecondTaskName,
    weight: float,
    clips: pd.DataFrame,
    train: np.ndarray,
    head: nn.Module,
    seed: int,
) -> SecondTask | None:
    """Return the task for one head, or None.

    Args:
        name: Which.
        weight: Of its loss.
        clips: The clips' table.
        train: Rows that are trained on; the task knows of no others.
        head: The head.
        seed: Of the layer's weights.

    Raises:
        HeadError: The training clips are of fewer than two classes of the task.
    """
    if name == "none":
        return None
    told = clips[name].to_numpy(dtype=object)
    classes = sorted({told[row] for row in train} - {""})
    if len(classes) < 2:
        has = f"only {classes[0]}" if classes else "none"
        raise HeadError(
            f"--second-task {name}: the training clips name {has} in column {name!r}; "
            "it takes two, so leave the option out or extract with a table that names them"
        )
    numbers = {value: number for number, value in enumerate(classes)}
    targets = np.full(len(told), -1, dtype=np.int64)
    targets[train] = [numbers.get(told[row], -1) for row in train]
    return SecondTask(head, targets, weight, seed)
