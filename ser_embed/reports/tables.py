"""The tables and facts of a run's folder, written whole and read as they were."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from ser_embed.errors import HeadError

__all__ = ["read_table", "write_json"]

_TEXT_COLUMNS = (
    "path", "corpus", "speaker", "gender", "emotion", "intensity", "label", "predicted", "sha256",
    "recording", "part",
)  # fmt: skip


def read_table(path: Path) -> pd.DataFrame:
    """Read a run's predictions.csv or clips.csv; a class or a speaker may be called `1` or `NA`.

    Raises:
        HeadError: It can't be read.
    """
    try:
        table = pd.read_csv(
            path, dtype=dict.fromkeys(_TEXT_COLUMNS, object), keep_default_na=False,
            encoding_errors="surrogateescape",
        )  # fmt: skip
        if not {"path", "corpus", "speaker", "label"} <= set(table):
            raise ValueError("its columns are others")
        return table
    except (OSError, ValueError) as error:
        raise HeadError(f"{path}: can't be read ({error}); train again") from error


def write_json(path: Path, told: dict[str, Any]) -> None:
    """Write a file that is there whole or, killed or on a full disk, not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(told))
    temporary.replace(path)
