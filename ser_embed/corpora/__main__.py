"""`python -m ser_embed.corpora`: what a corpus holds and what is wrong with it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_embed.command import DONE, SOME_CLIPS_FAILED, Outcome, run_command
from ser_embed.corpora.options import CorporaConfig
from ser_embed.errors import AudioError
from ser_embed.progress import track

if TYPE_CHECKING:
    from ser_embed.corpora.listing import Listing
    from ser_embed.corpora.naming import Utterance

__all__ = ["CorporaConfig", "audit", "main", "print_table"]


def _run(config: CorporaConfig) -> Outcome:
    from ser_embed.corpora.listing import listing_of

    result = audit(listing_of(config.root, config.corpus, config.csv), config.quiet)
    if not config.json:
        print_table(result)
    return Outcome(result, SOME_CLIPS_FAILED if result["faults"] else DONE)


def audit(listing: "Listing", quiet: bool = False) -> dict[str, Any]:
    """Decode every clip of a corpus.

    Returns:
        `corpus`, `clips` that can be used, `hours`, `speakers`, how many clips are of an
        `unnamed` one, how many clips there are by
        `genders`, `emotions`, `intensities` and `rates`, `duplicates` as pairs of paths with the
        same bytes, `long`: the seconds of each clip that is far longer than the others, by path,
        and `faults`: the reason by path. Paths are relative to the corpus's folder.
    """
    from ser_embed.audio import SAMPLE_RATE, AudioFile  # takes a moment, too long for --help

    faults, lengths = list(listing.faults), []
    usable: list[Utterance] = []
    rates: Counter[str] = Counter()
    first: dict[tuple[str, Any, Any], Utterance] = {}  # by the hash of its bytes, and the range
    duplicates = []
    for utterance in track(listing.utterances, f"read {listing.corpus}", "clip", quiet=quiet):
        path = utterance.path
        try:
            start, end = utterance.start, utterance.end
            times: Any = {} if start is end is None else {"start": start, "end": end}
            clip = AudioFile(path).read(**times)
        except AudioError as error:
            faults.append((path, str(error).removeprefix(f"{path}: ")))
            continue
        usable.append(utterance)
        lengths.append(len(clip.samples) / SAMPLE_RATE)
        rates[f"{clip.rate} Hz x {clip.channels}"] += 1
        earlier = first.setdefault((clip.sha256, start, end), utterance)
        if earlier is not utterance:
            duplicates.append((path, earlier.path))
    longest = listing.longest_usual(lengths)

    def name(path: Path) -> str:
        return str(path.relative_to(listing.root) if path.is_relative_to(listing.root) else path)

    by_path: dict[str, list[str]] = {}  # of which a file has one a time range
    for path, reason in faults:
        by_path.setdefault(name(path), []).append(reason)
    return {
        "corpus": listing.corpus,
        "clips": len(usable),
        "hours": round(sum(lengths) / 3600, 3),
        "speakers": len({u.speaker for u in usable if u.speaker}),
        "unnamed": sum(not u.speaker for u in usable),
        "genders": dict(Counter(u.gender or "unknown" for u in usable)),
        "emotions": dict(Counter(u.emotion for u in usable)),
        "intensities": dict(Counter(u.intensity or "unspecified" for u in usable)),
        "rates": dict(rates),
        "duplicates": [[name(a), name(b)] for a, b in duplicates],
        "long": {
            name(u.path): round(length, 2)
            for u, length in zip(usable, lengths, strict=True)
            if length > longest
        },
        "faults": {path: "; ".join(reasons) for path, reasons in by_path.items()},
    }


def print_table(result: dict[str, Any]) -> None:
    """Print what `audit` returns, a line each."""
    for key, value in result.items():
        if key == "duplicates":
            lines = [f"{a} = {b}" for a, b in value]
        elif key == "faults":
            lines = [f"{path}: {reason}" for path, reason in value.items()]
        elif key == "long":
            lines = [
                f"{path}: {seconds} s, far longer than the others"
                for path, seconds in value.items()
            ]
        else:
            counts = isinstance(value, dict)
            text = ", ".join(f"{k} {v}" for k, v in sorted(value.items())) if counts else value
            print(f"{key:12} {text}")
            continue
        print(f"{key:12} {len(value)}")
        for line in lines:
            print(f"{'':12} {line}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m ser_embed.corpora`."""
    return run_command(_run, CorporaConfig, "python -m ser_embed.corpora", argv)


if __name__ == "__main__":
    raise SystemExit(main())
