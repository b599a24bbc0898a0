"""What a folder or a CSV holds: the clips of a corpus and what is said of each.

`python -m ser_embed.corpora ROOT --corpus NAME` prints it.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from ser_embed.audio import AudioFile
from ser_embed.bundled import DEMO_CORPUS
from ser_embed.command import DONE, SOME_CLIPS_FAILED, Options, Outcome, run_command
from ser_embed.corpora.naming import CORPORA, Corpus, Utterance, recognise
from ser_embed.corpora.tables import DEMO, Listing, read_csv
from ser_embed.errors import AudioError, CorpusError

__all__ = ["Listing", "discover", "listing_of", "main", "read_corpus", "read_csv", "read_demo"]


def read_corpus(root: Path | str, corpus: str) -> Listing:
    """List the clips of a known corpus in a folder.

    Audio files that belong to another known corpus are passed over; those that no rule places
    are returned as faults.

    Raises:
        CorpusError: No such corpus, an empty folder, or no file of this corpus in it.
    """
    root = Path(root)
    rule = CORPORA.get(corpus)
    if rule is None:
        raise CorpusError(
            f"no corpus {corpus!r}; known are {', '.join(CORPORA)}. "
            "For any other, write a CSV with the header path,emotion and give it as --csv"
        )
    files = _find_real(root)
    if not files:
        raise CorpusError(f"{root}: no audio file in it ({' '.join(AudioFile.ENDINGS)})")
    utterances, faults = [], []
    for path in files:
        try:
            utterance = rule.parse(path)
        except CorpusError as error:
            faults.append((path, str(error).removeprefix(f"{path}: ")))
            continue
        if utterance:
            utterances.append(utterance)
        elif recognise(path) is None:
            faults.append((path, f"the name doesn't follow {rule.name}'s rule {rule.rule}"))
    if not utterances:
        raise CorpusError(_nothing_matched(root, rule, files))
    return Listing(corpus, root if root.is_dir() else root.parent, tuple(utterances), tuple(faults))


def _find_real(root: Path) -> list[Path]:
    """Return the audio files under `root`, without the demo corpus unless `root` lies in it."""
    try:
        files = AudioFile.find(root)
    except AudioError as error:
        raise CorpusError(str(error)) from error
    if root.resolve() in DEMO_CORPUS.parents:
        return [path for path in files if not path.resolve().is_relative_to(DEMO_CORPUS)]
    return files


def _nothing_matched(root: Path, rule: Corpus, files: list[Path]) -> str:
    others = Counter(found.corpus for path in files if (found := recognise(path)))
    text = (
        f"{root}: none of its {len(files)} audio files is named as {rule.name} names them "
        f"({rule.rule}), for instance {files[0].name}"
    )
    if others:
        return f"{text}. They look like {', '.join(f'{k} ({v} files)' for k, v in others.items())}"
    return f"{text}. For a corpus of your own write a CSV with the header path,emotion"


def discover(folder: Path) -> list[Listing]:
    """Return every known corpus found under a folder, each once, in the order of `CORPORA`.

    Files that belong to none are counted in a warning.

    Raises:
        CorpusError: No such folder.
    """
    if folder.resolve().is_relative_to(DEMO_CORPUS):
        return [read_demo(folder)]
    files = {path: recognise(path) for path in _find_real(folder)}
    names = {found.corpus for found in files.values() if found}
    strangers = [path for path, found in files.items() if not found]
    if strangers:
        log.warning(
            "%s: %d audio files are named as no known corpus names them and are left out, for "
            "instance %s; for a corpus of your own write a CSV with the header path,emotion",
            folder, len(strangers), strangers[0].relative_to(folder),
        )  # fmt: skip
    listings = []
    for name in CORPORA:
        if name in names:
            listing = read_corpus(folder, name)
            root = _common_folder(listing.root, listing.utterances)
            listings.append(Listing(name, root, listing.utterances))
    return listings


def _common_folder(folder: Path, utterances: Iterable[Utterance]) -> Path:
    """Return the deepest folder under `folder` that holds all of the clips."""
    parts = [u.path.parent.relative_to(folder).parts for u in utterances]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return folder.joinpath(*shared)


def read_demo(folder: Path = DEMO_CORPUS) -> Listing:
    """List the synthetic clips that ship with the project, under a corpus name of their own."""
    listing = read_corpus(folder, "ravdess")
    renamed = tuple(
        replace(u, corpus=DEMO, speaker=u.speaker.replace("ravdess", DEMO))
        for u in listing.utterances
    )
    return Listing(DEMO, folder, renamed, listing.faults)


def listing_of(root: Path | None, corpus: str, table: Path | None) -> Listing:
    """Return the listing that `ROOT --corpus NAME` or `--csv FILE` asks for.

    The demo corpus keeps its name however it is asked for, so that synthetic clips are never
    taken for RAVDESS's.

    Raises:
        CorpusError: Both or neither are given, or one of them can't be read.
    """
    if table:
        if root or corpus:
            raise CorpusError("--csv names the clips by itself: leave out ROOT and --corpus")
        return read_csv(table)
    if root is None and corpus == DEMO:
        return read_demo()
    if root is None:
        raise CorpusError("give a folder and --corpus NAME, or --csv FILE")
    if root.resolve().is_relative_to(DEMO_CORPUS):
        return read_demo(root)
    if not corpus:
        found = [listing.corpus for listing in discover(root)] if root.is_dir() else []
        hint = f" (found there: {', '.join(found)})" if found else ""
        raise CorpusError(f"say which corpus {root} is: --corpus {'|'.join(CORPORA)}{hint}")
    return read_corpus(root, corpus)


# --- the command -----------------------------------------------------------------------------


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorporaConfig(Options):
    """Print what a corpus holds: clips, hours, speakers, emotions, duplicates, faults."""

    root: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the corpus."""
    corpus: str = ""
    """ravdess, ravdess-song, tess, urdu, crema-d, emo-db, savee, nemo, or demo."""
    csv: Path | None = None
    """A CSV with the header path,emotion[,speaker,gender,intensity,split] instead."""


def inspect(config: CorporaConfig) -> Outcome:
    """Decode every clip of a corpus and print its table."""
    listing = listing_of(config.root, config.corpus, config.csv)
    faults, hashes, seconds = list(listing.faults), Counter[str](), 0.0
    rates: Counter[str] = Counter()
    usable: list[Utterance] = []
    first: dict[str, Path] = {}
    duplicates = []
    for utterance in listing.utterances:
        try:
            clip = AudioFile(utterance.path).read()
        except AudioError as error:
            faults.append((utterance.path, str(error).removeprefix(f"{utterance.path}: ")))
            continue
        rates[f"{clip.rate} Hz x {clip.channels}"] += 1
        usable.append(utterance)
        seconds += clip.seconds
        if hashes[clip.sha256]:
            duplicates.append((utterance.path, first[clip.sha256]))
        hashes[clip.sha256] += 1
        first.setdefault(clip.sha256, utterance.path)
    result = {
        "corpus": listing.corpus,
        "clips": len(usable),
        "hours": round(seconds / 3600, 3),
        "speakers": len({u.speaker for u in usable if u.speaker}),
        "genders": dict(Counter(u.gender or "unknown" for u in usable)),
        "emotions": dict(Counter(u.emotion for u in usable)),
        "intensities": dict(Counter(u.intensity or "unspecified" for u in usable)),
        "rates": dict(rates),
        "duplicates": [[_name(a, listing.root), _name(b, listing.root)] for a, b in duplicates],
        "faults": {_name(path, listing.root): reason for path, reason in faults},
    }
    if not config.json:
        _print_table(result)
    return Outcome(result, SOME_CLIPS_FAILED if faults else DONE)


def _name(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _print_table(result: dict[str, Any]) -> None:
    for key, value in result.items():
        if key in ("duplicates", "faults"):
            print(f"{key:12} {len(value)}")
            pairs = value.items() if key == "faults" else value
            for path, other in pairs:
                print(f"{'':12} {path}{': ' if key == 'faults' else ' = '}{other}")
        elif isinstance(value, dict):
            print(f"{key:12} " + ", ".join(f"{k} {v}" for k, v in sorted(value.items())))
        else:
            print(f"{key:12} {value}")


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.corpora`."""
    return run_command(inspect, CorporaConfig, "python -m ser_embed.corpora", argv)


if __name__ == "__main__":
    raise SystemExit(main())
