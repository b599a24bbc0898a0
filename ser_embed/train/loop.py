"""The training loop: a head, features, a split; early stopping; resumable after every epoch."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from ser_embed.errors import SerEmbedError
from ser_embed.reports import scores_of
from ser_embed.splits import Split
from ser_embed.train.second_task import SecondTask

__all__ = [
    "Batches", "EarlyStopping", "FitSettings", "History", "fit", "fit_tensor",
    "log_probabilities", "temperature_of",
]  # fmt: skip

EVALUATION_BATCH = 256


class Batches(Protocol):
    """What a head is trained on."""

    def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (features float32 (B, ...), frames int64 (B,)) of some clips."""


@dataclass
class History:
    """What training did, epoch by epoch; the columns of history.csv.

    Attributes:
        epoch: From 1.
        train_loss: Weighted cross-entropy over the epoch's batches, dropout on.
        val_loss: The same on the validation part, dropout off.
        val_uar: Mean recall over the classes on the validation part.
        val_wa: Accuracy on it.
        best: Epoch whose weights are kept.
    """

    epoch: list[int] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_uar: list[float] = field(default_factory=list)
    val_wa: list[float] = field(default_factory=list)
    best: int = 0

    @property
    def columns(self) -> dict[str, list[float]]:
        """The columns by name."""
        return {name: values for name, values in asdict(self).items() if name != "best"}


@dataclass(frozen=True)
class EarlyStopping:
    """When to stop and which epoch to keep.

    `patience` stops when the validation UAR (ties: the loss) has not improved for `patience`
    epochs and keeps the best. `paper` is the two-stage paper's rule: stop at the first epoch
    whose validation loss exceeds its training loss and keep the one before; it compares a loss
    with dropout to one without, and is there to reproduce.
    """

    rule: Literal["patience", "paper"] = "patience"
    patience: int = 15

    def best(self, history: History) -> int:
        """Return the epoch to keep so far."""
        if self.rule == "paper":
            over = self._overfitted(history)
            return max(1, len(history.epoch) - (1 if over else 0))
        scores = zip(history.val_uar, (-loss for loss in history.val_loss), strict=True)
        ranked = [(score, -epoch) for epoch, score in enumerate(scores, start=1)]
        return -max(ranked)[1]

    def stop(self, history: History) -> bool:
        """Return whether training is over."""
        if self.rule == "paper":
            return self._overfitted(history)
        return len(history.epoch) - self.best(history) >= self.patience

    @staticmethod
    def _overfitted(history: History) -> bool:
        return history.val_loss[-1] > history.train_loss[-1]


@dataclass(frozen=True)
class FitSettings:
    """How a head is trained.

    Attributes:
        epochs: At most so many.
        batch_size: Clips a batch.
        lr: Learning rate.
        weight_decay: Weight decay.
        optimizer: `adamw` or `adam` (whose decay is an L2 penalty).
        stopping: None trains all epochs and keeps the last.
        seed: Order of the clips and dropout.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    optimizer: Literal["adamw", "adam"]
    stopping: EarlyStopping | None
    seed: int


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _autocast(device: torch.device) -> torch.autocast:
    """bf16 where the processor multiplies it, else full precision."""
    # torch has no public question for this.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.autocast(
        device.type, torch.bfloat16, enabled=device.type == "cuda" or bool(supported())
    )


def log_probabilities(head: nn.Module, features: Batches, rows: np.ndarray) -> np.ndarray:
    """Return a head's log-probabilities of some clips, float32 (n, C): dropout off, fp32."""
    device = next(head.parameters()).device
    head.eval()
    results = []
    with torch.inference_mode():
        for chunk in torch.as_tensor(rows).split(EVALUATION_BATCH):
            batch, frames = features.batch(chunk)
            results.append(head(batch.to(device), frames.to(device)).float().cpu())
    return torch.cat(results).numpy()


def temperature_of(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that minimises the negative log-likelihood (Guo et al. 2017).

    Args:
        log_probs: (n, C) of the validation part.
        labels: Class indices (n,).
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        scaled = log_probs / np.exp(log_temperature)
        scaled = scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(
        loss, bounds=(np.log(0.2), np.log(10)), method="bounded", options={"xatol": 1e-4}
    )
    return float(np.exp(found.x))


class _Fit:
    """The state of one training run."""

    def __init__(
        self, head: nn.Module, features: Batches, labels: np.ndarray, split: Split,
        weights: np.ndarray, settings: FitSettings, checkpoint: Path | None,
        second: SecondTask | None,
    ) -> None:  # fmt: skip
        self.device = _device()
        self.head = head.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.features, self.split, self.settings = features, split, settings
        self.labels = torch.tensor(labels, device=self.device)  # pandas gives it read-only
        self.weights = torch.as_tensor(weights, dtype=torch.float32, device=self.device)
        kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
        self.second = second.to(self.device) if second else None
        trained = [*head.parameters(), *(second.parameters() if second else ())]
        self.optimizer = kind(trained, lr=settings.lr, weight_decay=settings.weight_decay)
        self.history = History()
        self.kept: dict[str, torch.Tensor] = {}
        self.checkpoint = checkpoint
        if checkpoint and checkpoint.is_file():
            self._resume(checkpoint)

    def run(self, on_epoch: Callable[[History], None]) -> History:
        stopping = self.settings.stopping
        while len(self.history.epoch) < self.settings.epochs:
            if stopping and self.history.epoch and stopping.stop(self.history):
                break
            self._epoch(len(self.history.epoch) + 1)
            self._keep()
            if self.checkpoint:
                self._save(self.checkpoint)
            on_epoch(self.history)
        self.head.load_state_dict(self.kept)
        return self.history

    def _epoch(self, epoch: int) -> None:
        # An epoch's randomness depends on the seed and its number alone: so a resumed run is the
        # run that was never interrupted, and the global generator stays as it was.
        seed = self.settings.seed * 100_003 + epoch
        generator = torch.Generator().manual_seed(seed)
        rows = torch.as_tensor(self.split.train)
        order = rows[torch.randperm(len(rows), generator=generator)]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            loss = self._train(order)
        log_probs = log_probabilities(self.head, self.features, self.split.val)
        truth = self.labels.cpu().numpy()[self.split.val]
        predicted = log_probs.argmax(1)
        val_loss = F.nll_loss(
            torch.from_numpy(log_probs), torch.from_numpy(truth), self.weights.cpu()
        )
        if not np.isfinite([loss, float(val_loss)]).all():
            raise SerEmbedError("the loss is not finite: try a smaller --lr")
        self.history.epoch.append(epoch)
        self.history.train_loss.append(loss)
        self.history.val_loss.append(float(val_loss))
        scores = scores_of(truth, predicted, len(self.weights))
        self.history.val_uar.append(scores["uar"])
        self.history.val_wa.append(scores["wa"])

    def _train(self, order: torch.Tensor) -> float:
        """Train on the clips in this order; return the loss, averaged as cross-entropy is.

        A weighted mean over an epoch is the sum of the batches' numerators over the sum of
        their denominators; the mean of the batches' means would be biased.
        """
        self.head.train()
        total = torch.zeros((), device=self.device)
        weight = torch.zeros((), device=self.device)
        batches = _batches(order, self.settings.batch_size)
        for rows in batches:
            batch, frames = self.features.batch(rows)
            targets = F.one_hot(self.labels[rows], len(self.weights)).float()
            with _autocast(self.device):
                log_probs = self.head(batch.to(self.device), frames.to(self.device))
            summed = -(log_probs * targets * self.weights).sum()
            mass = (targets * self.weights).sum()
            self.optimizer.zero_grad(set_to_none=True)
            second = self.second.loss(rows) if self.second else 0.0
            (summed / mass + second).backward()
            self.optimizer.step()
            total += summed.detach()
            weight += mass
        return float(total / weight)

    def _keep(self) -> None:
        """Remember the weights if this epoch's are the ones to keep so far."""
        stopping, n = self.settings.stopping, len(self.history.epoch)
        self.history.best = stopping.best(self.history) if stopping else n
        if self.history.best == n or not self.kept:
            self.kept = {k: v.detach().cpu().clone() for k, v in self.head.state_dict().items()}

    # One safetensors file holds it all, so that one rename makes it whole.

    def _save(self, path: Path) -> None:
        tensors = {f"head.{k}": v.detach().cpu() for k, v in self.head.state_dict().items()}
        tensors |= {f"kept.{k}": v for k, v in self.kept.items()}
        if self.second:
            tensors |= {f"second.{k}": v.cpu() for k, v in self.second.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{k}": v.cpu() for k, v in state.items()}
        temporary = path.with_suffix(".tmp")
        tensors = {k: v.clone().contiguous() for k, v in tensors.items()}
        save_file(tensors, temporary, metadata={"history": json.dumps(asdict(self.history))})
        temporary.replace(path)

    def _resume(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                history = json.loads(file.metadata()["history"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self.history = History(**history)
            self.head.load_state_dict(_under(tensors, "head."))
            self.kept = _under(tensors, "kept.")
            if self.second:
                self.second.load_state_dict(_under(tensors, "second."))
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, tensor in _under(tensors, "optimizer.").items():
                number, key = name.split(".", 1)
                state.setdefault(int(number), {})[key] = tensor
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OSError) as error:
            raise SerEmbedError(f"{path}: damaged ({error}); delete it to start again") from error


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Cut into batches; a single last clip joins the batch before, as batch norm needs two."""
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def fit(
    head: nn.Module,
    features: Batches,
    labels: np.ndarray,
    split: Split,
    class_weights: np.ndarray,
    settings: FitSettings,
    *,
    checkpoint: Path | None = None,
    second: SecondTask | None = None,
    on_epoch: Callable[[History], None] = lambda history: None,
) -> History:
    """Train a head in place, on the training part, watching the validation part.

    Args:
        head: From `heads.build_head`; ends with the weights of the epoch to keep, on the CPU.
        features: Batches of all clips.
        labels: Class index of each clip, int64 (N,).
        split: Rows of each part; the test part is never looked at.
        class_weights: Weight of each class in the loss, (C,).
        settings: How to train.
        checkpoint: File that the state is kept in after every epoch, and resumed from.
        second: A second task to learn; its loss isn't in the history.
        on_epoch: Called after every epoch.

    Returns:
        The history.

    Raises:
        SerEmbedError: The loss is not finite, or the checkpoint is damaged.
    """
    run = _Fit(head, features, labels, split, class_weights, settings, checkpoint, second)
    history = run.run(on_epoch)
    if second:
        second.close()
    head.to("cpu").eval()
    return history


class _InMemory:
    """Features of whole clips, float32 (N, ...), each of one frame."""

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features

    def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.features[rows], torch.ones(len(rows), dtype=torch.int64)


def fit_tensor(
    head: nn.Module, features: torch.Tensor, labels: np.ndarray, split: Split,
    class_weights: np.ndarray, seed: int,
) -> History:  # fmt: skip
    """Train a head in place on features in memory, with early stopping; see `fit`.

    Args:
        head: Takes (B, ...), and the number of frames (B,), which is one.
        features: Of all clips, float32 (N, ...).
        labels: Class index of each clip, int64 (N,).
        split: Rows of each part.
        class_weights: Weight of each class in the loss, (C,).
        seed: Order of the clips and dropout.
    """
    settings = FitSettings(100, 32, 1e-3, 0.01, "adamw", EarlyStopping(), seed)
    return fit(head, _InMemory(features), labels, split, class_weights, settings)
