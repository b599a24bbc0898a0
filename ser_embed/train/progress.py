"""What is shown while a head is trained: a bar, and TensorBoard's curves where it is installed."""

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ser_embed.splits import Split
from ser_embed.train.data import LabelledClips
from ser_embed.train.loop import History

__all__ = ["Progress", "announce", "progress"]

log = logging.getLogger("ser_embed.train")  # whose words these are


class Progress:
    """The bar and the curves of one fold."""

    def __init__(self, name: str, heads: int, bar: tqdm, writer: Any) -> None:
        self.name, self.heads, self.bar, self.writer = name, heads, bar, writer

    def __call__(self, member: int, history: History) -> None:
        """Show what an epoch of one head came to."""
        self.bar.n = len(history.epoch)
        if self.heads > 1:
            self.bar.set_description(f"{self.name}, head {member + 1} of {self.heads}")
        self.bar.set_postfix(loss=f"{history.train_loss[-1]:.3f}",
                             val_uar=f"{history.val_uar[-1]:.3f}", best=history.best)  # fmt: skip
        if self.writer:
            for name, values in history.columns.items():
                tag = f"{member}/{name}" if self.heads > 1 else name
                self.writer.add_scalar(tag, values[-1], len(history.epoch))


def announce(clips: LabelledClips, splits: Sequence[Split], head: str) -> None:
    """Log what a head is about to be trained on."""
    counts = clips.table["label"].value_counts()
    told = ", ".join(f"{name} {counts.get(i, 0)}" for i, name in enumerate(clips.classes))
    log.info("%d clips (%s), head %s, features %s", len(clips.table), told, head,
             clips.features.shape)  # fmt: skip
    if clips.left_out:
        log.info("left out by the label scheme: %s",
                 ", ".join(f"{k} {v}" for k, v in clips.left_out.items()))  # fmt: skip
    if len(splits) == 1:
        s = splits[0]
        log.info("train %d, validation %d, test %d", len(s.train), len(s.val), len(s.test))


@contextmanager
def progress(
    name: str, heads: int, epochs: int, folder: Path, hide: bool | None
) -> Iterator[Progress]:
    """Yield what is to be called after every epoch.

    Args:
        name: The fold's.
        heads: How many are trained.
        epochs: At most, of each.
        folder: Where TensorBoard's files are written.
        hide: tqdm's `disable`.
    """
    writer = _tensorboard(folder)
    with tqdm(total=epochs, desc=name, unit="epoch", disable=hide) as bar:
        yield Progress(name, heads, bar, writer)
    if writer:
        writer.close()


def _tensorboard(folder: Path) -> Any:
    """Return a SummaryWriter where TensorBoard is installed, else None."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))
