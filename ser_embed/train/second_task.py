"""A second task for a head while it trains: the speakers' gender, learnt with the emotion.

Multi-task learning (Caruana 1997, Machine Learning 28). A linear layer on the input of the head's
output layer does the task; it is dropped when training ends, and a head's file has nothing of it.

A speaker-adversarial task was tried and left out: on made-up data with a reversed gradient (Ganin
et al. 2016) speakers lay farther apart in what a head makes of them than without, and with
confusion (Tzeng et al. 2015) about as far.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from ser_embed.errors import HeadError
from ser_embed.train.options import SecondTaskName

__all__ = ["SecondTask", "second_task_of"]


class SecondTask(nn.Module):
    """A linear layer on what a head's last hidden layer.

    Args:
        head: Has a linear layer `output`, whose input is taken.
        targets: Class of each clip in the task, int64 (N,); -1 where it isn't known.
        weight: Of its loss next to the head's.
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
        self._input: torch.Tensor | None = None
        self._hook = output.register_forward_pre_hook(self._take_input)

    def _take_input(self, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._input = inputs[0]

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the weighted cross-entropy over the clips that the head has just seen.

        Args:
            rows: Their numbers, (B,); those whose class isn't known count nothing.
        """
        assert self._input is not None
        targets = self.targets[rows.to(self.targets.device)]
        logits = self.layer(self._input.float())  # (B, W) -> (B, classes of the task)
        summed = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
        return self.weight * summed / (targets >= 0).sum().clamp_min(1)

    def close(self) -> None:
        """Take the hook off."""
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
    values = clips[name].to_numpy(dtype=object)
    classes = sorted({values[row] for row in train} - {""})
    if len(classes) < 2:
        has = f"only {classes[0]}" if classes else "none"
        raise HeadError(
            f"--second-task {name}: the training clips name {has} in column {name!r}; "
            "it takes two, so leave the option out or extract with a table that names them"
        )
    numbers = {one: number for number, one in enumerate(classes)}
    targets = np.full(len(values), -1, dtype=np.int64)
    targets[train] = [numbers.get(values[row], -1) for row in train]
    return SecondTask(head, targets, weight, seed)
