"""Clips' files are found again by name and bytes, and by nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ser_embed.audio import AudioFile
from ser_embed.reports.tables import find_originals


@pytest.fixture
def tree(tmp_path: Path, write_tone: Callable[..., Path]) -> tuple[Path, pd.DataFrame]:
    root = tmp_path / "corpus"
    files = [write_tone(root / name, 0.2, seed=i)
             for i, name in enumerate(("a/one.wav", "b/one.wav", "b/two.wav"))]  # fmt: skip
    paths = [str(file.relative_to(root)) for file in files]
    return root, pd.DataFrame(
        {"path": paths, "sha256": [AudioFile(file).sha256() for file in files]}
    )


def test_files_are_where_they_were(tree: tuple[Path, pd.DataFrame]) -> None:
    root, clips = tree
    assert find_originals(clips, [root]) == [root / path for path in clips["path"]]
    assert find_originals(clips, [root / "none", root]) == [root / path for path in clips["path"]]


def test_files_are_found_under_other_folders(tree: tuple[Path, pd.DataFrame]) -> None:
    """As when the store was made of a folder above, or below, of what is there now."""
    root, clips = tree
    expected = [root / path for path in clips["path"]]
    assert find_originals(clips, [root.parent]) == expected
    assert find_originals(clips, [root / "a", root / "b"]) == expected
    moved = Path(shutil.move(root / "b", root / "c"))
    assert find_originals(clips, [root])[1:] == [moved / "one.wav", moved / "two.wav"]


def test_a_file_with_other_bytes_is_another(tree: tuple[Path, pd.DataFrame]) -> None:
    root, clips = tree
    (root / "b/two.wav").write_bytes(b"changed")
    (root / "a/one.wav").unlink()  # and b/one.wav is not it
    assert find_originals(clips, [root]) == [None, root / "b/one.wav", None]
    assert find_originals(clips, []) == [None] * 3
    assert find_originals(clips, [root / "none"]) == [None] * 3
