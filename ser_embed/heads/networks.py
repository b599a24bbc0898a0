"""The networks of the heads: features in, log-probabilities out.

Each maps features (B, ...) float32 and the number of valid frames (B,) int64 to
log-probabilities (B, C), and is built from the shape of one clip's features, the number of
classes, the dropout, and whether time was pooled at extraction.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

__all__ = [
    "CnnHead", "ConvHead", "Ensemble", "LayersHead", "MlpHead", "StatsHead", "TemporalHead",
    "assemble",
]  # fmt: skip


def _mask(x: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Return 1 for a clip's own frames and 0 for padding: x (B, D, T) -> (B, 1, T)."""
    times = torch.arange(x.shape[2], device=x.device)
    return (times < frames[:, None]).to(x.dtype).unsqueeze(1)


def _statistics(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation over time of x (B, D, T) under a mask (B, 1, T): (B, 2 D)."""
    weights = mask / mask.sum(2, keepdim=True).clamp_min(1)
    mean = (x * weights).sum(2)
    variance = ((x - mean.unsqueeze(2)) ** 2 * weights).sum(2)
    return torch.cat([mean, (variance + 1e-6).sqrt()], dim=1)


def _average_down(x: torch.Tensor, rows: int) -> torch.Tensor:
    """Average an image (B, C, H, W) over its width and down to so many rows: (B, C, rows).

    What `F.adaptive_avg_pool2d(x, (rows, 1))` does, which ONNX can't for a height that varies.
    """
    height, numbers = x.shape[2], torch.arange(rows, device=x.device)[:, None]
    heights = torch.arange(height, device=x.device)
    first, after = numbers * height // rows, ((numbers + 1) * height + rows - 1) // rows
    inside = ((heights >= first) & (heights < after)).to(x.dtype)  # (rows, H)
    return x.mean(3) @ (inside / inside.sum(1, keepdim=True)).T  # (B, C, H) @ (H, rows)


class ConvHead(nn.Module):
    """The two-stage paper's head over the (T, F) image.

    Eight convolutions in four blocks of two, a max pool after each, batch norm and ReLU after
    every convolution, dropout in the last, one hidden linear layer, log-softmax. The paper
    prints no widths; these give its 3,137,699 parameters on (1, 149, 32), with its shapes
    (32, 34, 5) after the second block and 1,024 before the linear layers.
    """

    WIDTHS = (8, 16, 16, 32, 288, 320, 288, 128)

    def __init__(
        self, shape: tuple[int, ...], n_classes: int, dropout: float, pooled: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for i, width in enumerate(self.WIDTHS):
            # No padding in the first two blocks, so that 149 x 32 becomes 34 x 5.
            layers += [nn.Conv2d(channels, width, 3, padding=0 if i < 4 else 1)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
            if i == 7:
                layers.append(nn.Dropout(dropout))
            if i % 2:
                layers.append(nn.MaxPool2d(2))
        self.blocks = nn.Sequential(*layers)
        self.hidden = nn.Linear(128 * 8, 1024)
        self.output = nn.Linear(1024, n_classes)

    def forward(self, features: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, C)."""
        x = self.blocks(features.unsqueeze(1))  # (B, 1, 149, 32) -> (B, 128, 8, 1)
        # Wider or longer images than the paper's are averaged down to its 8 x 1.
        x = _average_down(x, 8).flatten(1)  # (B, 1024)
        x = F.relu(self.hidden(x))  # (B, 1024)
        return F.log_softmax(self.output(x).float(), dim=1)  # (B, C)


class TemporalHead(nn.Module):
    """Eight convolutions over time, statistics pooling, one hidden layer.

    For wide hidden states: the feature dimension is the first convolution's input channels, so
    nothing is shared across features, which have no order. Three of the convolutions halve the
    time (20 ms a frame is finer than emotion needs); the others have residuals.
    """

    WIDTH = 128
    STRIDES = (2, 1, 2, 1, 2, 1, 1, 1)  # 149 frames -> 75 -> 38 -> 19, of 160 ms

    def __init__(
        self, shape: tuple[int, ...], n_classes: int, dropout: float, pooled: bool
    ) -> None:
        super().__init__()
        sizes = [shape[-1]] + [self.WIDTH] * 8
        self.convolutions = nn.ModuleList(
            nn.Conv1d(a, b, 3, stride=stride, padding=1)
            for a, b, stride in zip(sizes, sizes[1:], self.STRIDES, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(self.WIDTH) for _ in self.STRIDES)
        # Whole channels: neighbouring frames are too alike for single values to be missed, and
        # drawing a number for each of them takes long.
        self.drop_channels = nn.Dropout1d(dropout / 2)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(2 * self.WIDTH, self.WIDTH)
        self.output = nn.Linear(self.WIDTH, n_classes)

    def forward(self, features: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, C)."""
        x = features.transpose(1, 2)  # (B, D, T)
        mask = _mask(x, frames)  # (B, 1, T)
        for convolution, norm, stride in zip(
            self.convolutions, self.norms, self.STRIDES, strict=True
        ):
            # Padding stays zero, so that it doesn't leak into a clip's last frames.
            y = self.drop_channels(F.relu(norm(convolution(x * mask))))
            x = y if stride > 1 else x + y  # (B, 128, T / 2, 4, 8)
            if stride > 1:
                frames = (frames + 1) // 2
                mask = _mask(x, frames)
        x = _statistics(x, mask)  # (B, 256)
        x = self.dropout(F.relu(self.hidden(x)))  # (B, 128)
        return F.log_softmax(self.output(x).float(), dim=1)  # (B, C)


class CnnHead(nn.Module):
    """A plain convolutional classifier of spectrogram images (T, F): the baseline of comparisons.

    Four convolutions of 3 x 3, each halving time and frequency, with batch norm and ReLU; the
    mean over what is left, dropout, one linear layer. Each frequency is standardised first.
    """

    WIDTHS = (16, 32, 64, 128)

    def __init__(
        self, shape: tuple[int, ...], n_classes: int, dropout: float, pooled: bool
    ) -> None:
        super().__init__()
        sizes = (1, *self.WIDTHS)
        self.standardise = nn.BatchNorm1d(shape[-1], affine=False)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(sizes)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in self.WIDTHS)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(self.WIDTHS[-1], n_classes)

    def forward(self, features: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, C)."""
        x = self.standardise(features.transpose(1, 2)).unsqueeze(1)  # (B, 1, F, T)
        mask = _mask(x[:, 0], frames).unsqueeze(1)  # (B, 1, 1, T)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x * mask)))  # (B, 16 to 128, F / 2 to 16, T / 2 to 16)
            frames = (frames + 1) // 2
            mask = _mask(x[:, 0], frames).unsqueeze(1)
        x = (x.mean(2) * mask[:, 0]).sum(2) / mask[:, 0].sum(2).clamp_min(1)  # (B, 128)
        return F.log_softmax(self.output(self.dropout(x)).float(), dim=1)  # (B, C)


def _dense(size_in: int, size_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(size_in, size_out), nn.BatchNorm1d(size_out), nn.ReLU(), nn.Dropout(dropout)
    )


class MlpHead(nn.Module):
    """Mean over time, then 512 -> 256 -> classes, each with batch norm, ReLU and dropout."""

    def __init__(
        self, shape: tuple[int, ...], n_classes: int, dropout: float, pooled: bool
    ) -> None:
        super().__init__()
        self.pooled = pooled
        self.dense = nn.Sequential(_dense(shape[-1], 512, dropout), _dense(512, 256, dropout))
        self.output = nn.Linear(256, n_classes)

    def forward(self, features: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, C)."""
        x = features.flatten(1) if self.pooled else self.pool(features, frames)  # (B, D)
        return F.log_softmax(self.output(self.dense(x)).float(), dim=1)  # (B, C)

    def pool(self, features: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Return the mean over time (B, D) of (B, T, D)."""
        x = features.transpose(1, 2)  # (B, D, T)
        mask = _mask(x, frames)
        return (x * mask).sum(2) / mask.sum(2).clamp_min(1)


class StatsHead(nn.Module):
    """Mean and standard deviation over time of every layer, then two hidden layers.

    What a support vector machine on functionals sees (Eyben et al. 2016), learnt: inputs are
    standardised by a batch norm without weights, and whole inputs are dropped too.
    """

    WIDTH = 256

    def __init__(
        self, shape: tuple[int, ...], n_classes: int, dropout: float, pooled: bool
    ) -> None:
        super().__init__()
        self.pooled = pooled
        size = math.prod(shape) if pooled else 2 * math.prod(shape[:-2]) * shape[-1]
        self.standardise = nn.BatchNorm1d(size, affine=False)
        self.drop_inputs = nn.Dropout(dropout / 2)
        self.dense = nn.Sequential(
            _dense(size, self.WIDTH, dropout), _dense(self.WIDTH, self.WIDTH, dropout)
        )
        self.output = nn.Linear(self.WIDTH, n_classes)

    def forward(self, features: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, C)."""
        # (B, L, 2 D), or (B, [L,] T, D), -> (B, 2 L D)
        x = features.flatten(1) if self.pooled else self.pool(features, frames)
        x = self.drop_inputs(self.standardise(x.float()))
        return F.log_softmax(self.output(self.dense(x)).float(), dim=1)  # (B, C)

    def pool(self, features: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Return mean and deviation over time (B, 2 L D) of (B, [L,] T, D)."""
        x = features.transpose(-1, -2).flatten(1, -2)  # (B, [L] D, T): layers beside features
        return _statistics(x, _mask(x, frames))


class LayersHead(nn.Module):
    """A learned weighted sum of all layers, then a small network (Pepino et al. 2021)."""

    WIDTH = 128

    def __init__(
        self, shape: tuple[int, ...], n_classes: int, dropout: float, pooled: bool
    ) -> None:
        super().__init__()
        self.framewise = len(shape) == 3
        self.weights = nn.Parameter(torch.zeros(shape[0]))
        self.frame = nn.Sequential(
            nn.Linear(shape[-1], self.WIDTH), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(self.WIDTH, self.WIDTH), nn.ReLU(), nn.Dropout(dropout),
        )  # fmt: skip
        self.output = nn.Linear(self.WIDTH * (2 if self.framewise else 1), n_classes)

    def forward(self, features: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, C)."""
        x = torch.einsum("l,bl...->b...", self.weights.softmax(0), features)
        x = self.frame(x)  # (B, T, 128), or (B, 128) pooled
        if self.framewise:
            x = x.transpose(1, 2)  # (B, 128, T)
            x = _statistics(x, _mask(x, frames))  # (B, 256)
        return F.log_softmax(self.output(x).float(), dim=1)  # (B, C)


class Ensemble(nn.Module):
    """Several heads of one kind: the mean of their probabilities."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, features: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, C)."""
        log_probs = torch.stack([member(features, frames) for member in self.members])
        return log_probs.logsumexp(0) - math.log(len(self.members))


_KINDS: dict[str, Callable[..., nn.Module]] = {
    kind.__name__: kind
    for kind in (ConvHead, TemporalHead, MlpHead, StatsHead, LayersHead, CnnHead)
}


def assemble(
    kind: str | Callable[..., nn.Module], shape: tuple[int, ...], n_classes: int, pooled: bool,
    dropout: float = 0.0, members: int = 1, seed: int = 0,
) -> nn.Module:  # fmt: skip
    """Build a head, or an ensemble of them, with seeded weights.

    Args:
        kind: Name of a class of this module, or what builds a head as they are built.
        shape: Shape of one clip's features.
        n_classes: Number of classes.
        pooled: Whether time was pooled at extraction.
        dropout: In training.
        members: How many heads; one is the head itself.
        seed: Of the first head's weights, the others' follow; torch's own generator is left alone.
    """
    build = _KINDS[kind] if isinstance(kind, str) else kind
    heads = []
    with torch.random.fork_rng(devices=[]):
        for number in range(members):
            torch.manual_seed(seed + number)
            heads.append(build(shape, n_classes, dropout, pooled))
    return heads[0] if members == 1 else Ensemble(heads)
