"""Every clip of a corpus decoded: what the corpus holds, its duplicates and its faults."""

from collections import Counter
from pathlib import Path
from typing import Any

from ser_embed.audio import AudioFile
from ser_embed.corpora.listing import Listing
from ser_embed.corpora.naming import Utterance
from ser_embed.errors import AudioError
from ser_embed.progress import track

__all__ = ["audit", "print_table"]


def audit(listing: Listing, quiet: bool = False) -> dict[str, Any]:
    """Decode every clip of a corpus.

    Returns:
        `corpus`, `clips` that can be used, `hours`, `speakers`, how many clips there are by
        `genders`, `emotions`, `intensities` and `rates`, `duplicates` as pairs of paths with the
        same bytes, and `faults`: the reason by path. Paths are relative to the corpus's folder.
    """
    faults, seconds = list(listing.faults), 0.0
    usable: list[Utterance] = []
    rates: Counter[str] = Counter()
    first: dict[str, Path] = {}  # by the hash of its bytes
    duplicates = []
    for utterance in track(listing.utterances, f"read {listing.corpus}", "clip", quiet=quiet):
        path = utterance.path
        try:
            clip = AudioFile(path).read()
        except AudioError as error:
            faults.append((path, str(error).removeprefix(f"{path}: ")))
            continue
        usable.append(utterance)
        seconds += clip.seconds
        rates[f"{clip.rate} Hz x {clip.channels}"] += 1
        if first.setdefault(clip.sha256, path) is not path:
            duplicates.append((path, first[clip.sha256]))

    def name(path: Path) -> str:
        return str(path.relative_to(listing.root) if path.is_relative_to(listing.root) else path)

    return {
        "corpus": listing.corpus,
        "clips": len(usable),
        "hours": round(seconds / 3600, 3),
        "speakers": len({u.speaker for u in usable if u.speaker}),
        "genders": dict(Counter(u.gender or "unknown" for u in usable)),
        "emotions": dict(Counter(u.emotion for u in usable)),
        "intensities": dict(Counter(u.intensity or "unspecified" for u in usable)),
        "rates": dict(rates),
        "duplicates": [[name(a), name(b)] for a, b in duplicates],
        "faults": {name(path): reason for path, reason in faults},
    }


def print_table(result: dict[str, Any]) -> None:
    """Print what `audit` returns, a line each."""
    for key, value in result.items():
        if key == "duplicates":
            lines = [f"{a} = {b}" for a, b in value]
        elif key == "faults":
            lines = [f"{path}: {reason}" for path, reason in value.items()]
        else:
            counts = isinstance(value, dict)
            text = ", ".join(f"{k} {v}" for k, v in sorted(value.items())) if counts else value
            print(f"{key:12} {text}")
            continue
        print(f"{key:12} {len(value)}")
        for line in lines:
            print(f"{'':12} {line}")
