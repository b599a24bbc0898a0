"""Where the material that ships with the project lies."""

import hashlib
from pathlib import Path

__all__ = [
    "BUNDLED_ENCODERS", "BUNDLED_HEADS", "DEFAULT_HEAD", "DEMO_CORPUS", "DEMO_TITLE",
    "HEADS_LICENCE", "changed_files",
]  # fmt: skip

_HERE = Path(__file__).resolve().parent
# An installed package has it inside, a checkout beside the package.
_ARTIFACTS = next(filter(Path.is_dir, (_HERE / "artifacts", _HERE.parent / "artifacts")),
                  _HERE / "artifacts")  # fmt: skip

BUNDLED_ENCODERS = _ARTIFACTS / "encoders"
BUNDLED_HEADS = _ARTIFACTS / "heads"
DEFAULT_HEAD = "sentiment3"  # what classifies where nothing has been trained yet
HEADS_LICENCE = "CC BY-NC-SA 4.0"  # of the heads in BUNDLED_HEADS, see the README there
DEMO_CORPUS = _ARTIFACTS / "demo"  # synthetic clips: see ser_embed/demo.py
DEMO_TITLE = "# Synthetic demo corpus"  # first line of the README.md of one, bundled or made


def changed_files(folder: Path) -> list[str]:
    """Return the files of a folder that aren't what its `SHA256SUMS` says, that list included.

    `sha256sum FILE... > SHA256SUMS` in the folder makes the list anew.
    """
    changed = []
    try:
        lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ["SHA256SUMS"]
    for line in lines:
        digest, _, name = line.partition("  ")
        try:
            data = (folder / name).read_bytes()
        except (OSError, ValueError):
            data = b""
        if hashlib.sha256(data).hexdigest() != digest:
            changed.append(name)
    return changed if lines else ["SHA256SUMS"]
