"""The audio files behind the rows of a run's tables, found again by name and bytes."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from ser_embed.audio import AudioFile
from ser_embed.errors import AudioError
from ser_embed.store import FeatureStore, find_stores

__all__ = ["find_originals", "roots_of"]


def roots_of(folder: Path, corpora: Iterable[str]) -> list[Path]:
    """Return where the corpora of a folder's stores were when they were extracted."""
    wanted, roots = set(corpora), []
    for path in find_stores(folder):
        with FeatureStore(path) as store:
            if store.corpus in wanted:
                roots.append(Path(store.root))
    return list(dict.fromkeys(roots))


def find_originals(clips: pd.DataFrame, roots: Sequence[Path]) -> list[Path | None]:
    """Find the file of each clip; one whose bytes have changed is not it.

    Args:
        clips: With `path`, relative to the folder its corpus was in, and `sha256`.
        roots: Folders to look in: the corpora's own, or folders above them.

    Returns:
        A path for each row, None where there is no such file.
    """
    named: dict[str, list[Path]] | None = None
    found: list[Path | None] = []
    for told, sha256 in clips[["path", "sha256"]].itertuples(index=False, name=None):
        file = _first([root / told for root in roots], sha256)
        if file is None:
            if named is None:
                named = _by_name(roots)
            file = _first(named.get(Path(told).name, []), sha256)
        found.append(file)
    return found


def _first(candidates: Sequence[Path], sha256: str) -> Path | None:
    for path in candidates:
        try:
            if AudioFile(path).sha256() == sha256:
                return path
        except AudioError:  # not there, or not to be read
            continue
    return None


def _by_name(roots: Sequence[Path]) -> dict[str, list[Path]]:
    named: dict[str, list[Path]] = {}
    for root in roots:
        if root.is_dir():
            for path in AudioFile.find(root):
                named.setdefault(path.name, []).append(path)
    return named
