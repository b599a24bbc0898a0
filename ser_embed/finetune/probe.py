"""A network's head trained on its encoder as it is, before both are trained together.

A new head's first gradients are noise, and what they do to the encoder is not undone: linear
probing, then fine-tuning (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and
Underperform Out-of-Distribution").
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ser_embed.finetune.network import EncoderHead, Network
from ser_embed.finetune.recordings import Recordings
from ser_embed.splits import Split
from ser_embed.train import EarlyStopping, FitSettings, fit

__all__ = ["probe"]

_SETTINGS: dict[str, Any] = {
    "epochs": 100, "batch_size": 32, "lr": 1e-3, "weight_decay": 0.01, "optimizer": "adamw",
}  # fmt: skip


@dataclass(frozen=True)
class _Pooled:
    """What a head pools of an encoder's states, float32 (n, D); of other clips zeros."""

    states: torch.Tensor
    pooled: bool = True

    def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.states[rows], torch.ones(len(rows), dtype=torch.int64)


def probe(
    network: Network,
    clips: Recordings,
    split: Split,
    class_weights: np.ndarray,
    batch_size: int,
    seed: int,
    hide: bool | None = None,
) -> dict[str, Any]:
    """Train the head in place on the training part, and keep the epoch that validation prefers.

    Args:
        network: Of a head of stage 2 on an encoder.
        clips: All clips.
        split: Rows of each part; the test part is never looked at.
        class_weights: Weight of each class in the loss, (C,).
        batch_size: Clips that are encoded at a time.
        seed: Order of the clips and dropout.
        hide: tqdm's `disable`.

    Returns:
        `epochs`, `kept`, and the validation part's `val_uar` there.
    """
    module = network.module
    assert isinstance(module, EncoderHead)
    rows = np.concatenate([split.train, split.val])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.to(device).eval()
    found: torch.Tensor | None = None
    batches = np.split(rows, range(batch_size, len(rows), batch_size))
    for some in tqdm(batches, f"probing {split.name}", unit="batch", disable=hide):
        batch = network.batch([clips.waveform(int(row)) for row in some])
        with torch.inference_mode():
            pooled = module.pooled(**{name: tensor.to(device) for name, tensor in batch.items()})
        if found is None:
            found = torch.zeros(len(clips.table), pooled.shape[1])
        found[some] = pooled.float().cpu()
    assert found is not None
    labels = clips.table["label"].to_numpy()
    settings = FitSettings(**_SETTINGS, stopping=EarlyStopping(), seed=seed)
    module.head.pooled = True
    history = fit(module.head, _Pooled(found), labels, split, class_weights, settings)
    module.head.pooled = False
    best = history.best - 1
    return {"epochs": len(history.epoch), "kept": history.best, "val_uar": history.val_uar[best]}
