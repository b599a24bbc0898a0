"""What a folder or a CSV lists: the clips of a corpus and what is known of each."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ser_embed.audio import AudioFile
from ser_embed.bundled import DEMO_CORPUS
from ser_embed.corpora.naming import CORPORA, Corpus, Utterance, recognise
from ser_embed.corpora.tables import read_rows
from ser_embed.errors import AudioError, CorpusError

__all__ = ["Listing", "discover", "listing_of", "read_corpus", "read_csv", "read_demo"]

log = logging.getLogger(__name__)

DEMO = "demo"  # corpus name of the synthetic clips


@dataclass(frozen=True)
class Listing:
    """What a folder or CSV holds.

    Attributes:
        corpus: Name of the corpus.
        root: Folder that paths are relative to.
        utterances: The clips, sorted by path.
        faults: Path and reason of each audio file whose name follows no rule.
    """

    corpus: str
    root: Path
    utterances: Sequence[Utterance]
    faults: tuple[tuple[Path, str], ...] = ()

    @property
    def synthetic(self) -> bool:
        """Whether these are the demo corpus's clips, which no person spoke."""
        return self.corpus == DEMO


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
    if root is None:
        if corpus == DEMO:
            return read_demo()
        raise CorpusError("give a folder and --corpus NAME, or --csv FILE")
    if root.resolve().is_relative_to(DEMO_CORPUS):
        return read_demo(root)
    if not corpus:
        found = [listing.corpus for listing in discover(root)] if root.is_dir() else []
        hint = f" (found there: {', '.join(found)})" if found else ""
        raise CorpusError(f"say which corpus {root} is: --corpus {'|'.join(CORPORA)}{hint}")
    return read_corpus(root, corpus)


# --- folders ---------------------------------------------------------------------------------


def read_corpus(root: Path | str, corpus: str) -> Listing:
    """List the clips of a known corpus in a folder.

    Audio files that belong to another known corpus are passed over; those whose names follow no
    rule are returned as faults.

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
    files = _recorded_files(root)
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
        raise CorpusError(_no_match(root, rule, files))
    return Listing(corpus, root if root.is_dir() else root.parent, tuple(utterances), tuple(faults))


def read_demo(folder: Path = DEMO_CORPUS) -> Listing:
    """List the synthetic clips that ship with the project, under a corpus name of their own."""
    listing = read_corpus(folder, "ravdess")
    renamed = tuple(
        replace(u, corpus=DEMO, speaker=u.speaker.replace("ravdess", DEMO))
        for u in listing.utterances
    )
    return Listing(DEMO, folder, renamed, listing.faults)


def discover(folder: Path) -> list[Listing]:
    """Return every known corpus found under a folder, each once, in the order of `CORPORA`.

    Files that belong to none are counted in a warning.

    Raises:
        CorpusError: No such folder.
    """
    if folder.resolve().is_relative_to(DEMO_CORPUS):
        return [read_demo(folder)]
    found = {path: recognise(path) for path in _recorded_files(folder)}
    unknown = [path for path, utterance in found.items() if not utterance]
    if unknown:
        log.warning(
            "%s: %d audio files are named as no known corpus names them and are left out, for "
            "instance %s; for a corpus of your own write a CSV with the header path,emotion",
            folder, len(unknown), unknown[0].relative_to(folder),
        )  # fmt: skip
    listings = []
    for name in CORPORA:
        if any(utterance and utterance.corpus == name for utterance in found.values()):
            listing = read_corpus(folder, name)
            root = os.path.commonpath([u.path.parent for u in listing.utterances])
            listings.append(Listing(name, Path(root), listing.utterances))
    return listings


def _recorded_files(root: Path) -> list[Path]:
    """Return the audio files under `root`, without the demo corpus unless `root` lies in it."""
    try:
        files = AudioFile.find(root)
    except AudioError as error:
        raise CorpusError(str(error)) from error
    if root.resolve() in DEMO_CORPUS.parents:
        return [path for path in files if not path.resolve().is_relative_to(DEMO_CORPUS)]
    return files


def _no_match(root: Path, rule: Corpus, files: list[Path]) -> str:
    others = Counter(found.corpus for path in files if (found := recognise(path)))
    text = (
        f"{root}: none of its {len(files)} audio files is named as {rule.name} names them "
        f"({rule.rule}), for instance {files[0].name}"
    )
    if others:
        return f"{text}. They look like {', '.join(f'{k} ({v} files)' for k, v in others.items())}"
    return f"{text}. For a corpus of your own write a CSV with the header path,emotion"


# --- a user's own CSV ------------------------------------------------------------------------


def read_csv(file: Path | str) -> Listing:
    """List the clips of a CSV with the header `path,emotion[,speaker,gender,intensity,split]`.

    With the columns `start,end` (seconds) a row is a time range of its file. Relative paths are
    relative to the CSV's folder. Files that don't exist are listed all the same: extraction
    reports them as failed clips. A million lines take 0.6 GB of memory.

    Raises:
        CorpusError: No such file, no usable header, or no row that can be used.
    """
    file = Path(file)
    # A table that has a known corpus's name is kept apart from that corpus.
    corpus = f"{file.stem}-csv" if file.stem.lower() in (*CORPORA, DEMO) else file.stem
    try:
        clips, faults = read_rows(file, corpus)
    except OSError as error:
        raise CorpusError(f"{file}: can't be read as CSV ({error})") from error
    return Listing(corpus, file.parent, tuple(clips), tuple(faults))
