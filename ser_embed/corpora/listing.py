"""What a folder or a CSV lists: the clips of a corpus and what is known of each."""

import difflib
import logging
import os
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from ser_embed.audio import AudioFile
from ser_embed.bundled import DEMO_CORPUS, DEMO_TITLE
from ser_embed.corpora.naming import CORPORA, Corpus, Utterance, recognise
from ser_embed.corpora.tables import read_rows
from ser_embed.errors import AudioError, CorpusError, UnknownCorpus

__all__ = ["Listing", "discover", "listing_of", "read_corpus", "read_csv", "read_demo"]

log = logging.getLogger(__name__)

_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"})
DEMO = "demo"  # corpus name of the synthetic clips

Fault = tuple[Path, str]  # what can't be used, and why


@dataclass(frozen=True)
class Listing:
    """What a folder or CSV holds.

    Attributes:
        corpus: Name of the corpus.
        root: Folder that paths are relative to.
        utterances: The clips, sorted by path.
        faults: Path and reason of what is no clip: a name that follows no rule, a row of a table
            that contradicts another, a folder that can't be read.
    """

    corpus: str
    root: Path
    utterances: Sequence[Utterance]
    faults: tuple[Fault, ...] = ()

    @property
    def synthetic(self) -> bool:
        """Whether it holds clips of a demo corpus, which no person spoke, under whatever name."""
        if self.corpus == DEMO:
            return True
        return any(map(_is_synthetic, {utterance.path.parent for utterance in self.utterances}))

    @staticmethod
    def longest_usual(seconds: Sequence[float]) -> float:
        """Return the seconds beyond which a clip is far longer than its corpus: five times the
        (lower) median, and 5 s more at least. Such a file is often a whole session among its clips.
        """
        median = statistics.median_low(seconds) if len(seconds) else 0.0
        return max(5 * median, median + 5.0)

    def renamed(self, corpus: str) -> "Listing":
        """Return the listing under another corpus's name, its speakers and recordings with it."""

        def name(text: str) -> str:
            prefix, colon, rest = text.partition(":")
            return sys.intern(f"{corpus}:{rest}" if colon and prefix == self.corpus else text)

        utterances = tuple(
            replace(u, corpus=corpus, speaker=name(u.speaker), recording=name(u.recording))
            for u in self.utterances
        )
        return replace(self, corpus=corpus, utterances=utterances)


def _mixes(utterances: Sequence[Utterance]) -> bool:
    """Return whether synthetic clips and others are there; a file that is missing is neither."""
    folders = {utterance.path.parent for utterance in utterances if utterance.path.is_file()}
    return len(set(map(_is_synthetic, folders))) > 1


def listing_of(root: Path | None, corpus: str, table: Path | None) -> Listing:
    """Return the listing that `ROOT [--corpus NAME]` or `--csv FILE` asks for.

    Without a name the folder's one corpus is taken. A demo corpus keeps its name however it is
    asked for, so that synthetic clips are never taken for RAVDESS's. Clips of equal bytes that
    differ in what is said of them, and files of one name and other bytes, are faults.

    Raises:
        CorpusError: Both or neither are given, or one of them can't be read; UnknownCorpus: no
            corpus is called so.
    """
    if table:
        if root or corpus:
            raise CorpusError("--csv names the clips by itself: leave out ROOT and --corpus")
        listing = read_csv(table)
        folders = {utterance.path.parent for utterance in listing.utterances}
        if len(set(map(_is_synthetic, folders))) > 1 and _mixes(listing.utterances):
            raise CorpusError(
                f"{table}: lists clips of the synthetic demo corpus and others; they are never "
                "mixed. Take one of the two kinds out"
            )
        return _settled(listing)
    corpus = _known_name(corpus) if corpus else ""
    if root is None:
        if corpus == DEMO:
            return read_demo()
        raise CorpusError("give a folder and --corpus NAME, or --csv FILE")
    files, _ = _search(root)
    if all(_is_synthetic(path.parent) for path in files):
        return read_demo(root)
    return _settled(read_corpus(root, corpus or _only_corpus(root, files)))


def _only_corpus(root: Path, files: Sequence[Path]) -> str:
    """Return the name of the one corpus among a folder's files.

    Raises:
        CorpusError: There are several, or none.
    """
    real = (path for path in files if not _is_synthetic(path.parent))
    names = {found.corpus for path in real if (found := recognise(path))}
    if not names:
        discover(root)  # raises, since no file is named as a known corpus names it
    if len(names) != 1:
        found_there = ", ".join(name for name in CORPORA if name in names)
        raise CorpusError(
            f"say which corpus {root} is: --corpus {'|'.join(CORPORA)} (found there: {found_there})"
        )
    corpus = names.pop()
    log.info("%s holds %s", root, corpus)
    return corpus


def _known_name(corpus: str) -> str:
    """Return a corpus's name as it is spelt here, from any case and with or without dashes.

    Raises:
        UnknownCorpus: There is none of that name; the nearest is offered.
    """

    def plain(name: str) -> str:
        return "".join(filter(str.isalnum, name.lower()))

    names = {plain(name): name for name in (*CORPORA, DEMO)}
    if plain(corpus) in names:
        return names[plain(corpus)]
    near = difflib.get_close_matches(plain(corpus), names, 1)
    hint = f". Did you mean --corpus {names[near[0]]}?" if near else "."
    raise UnknownCorpus(
        f"no corpus {corpus!r}; known are {', '.join(CORPORA)}{hint} "
        "For any other, write a CSV with the header path,emotion and give it as --csv"
    )


# --- folders ---------------------------------------------------------------------------------


def read_corpus(root: Path | str, corpus: str) -> Listing:
    """List the clips of a known corpus in a folder.

    Audio files that belong to another known corpus or to the demo corpus are passed over; those
    whose names follow no rule are returned as faults, as is what can't be looked into.

    Raises:
        CorpusError: No such corpus, an empty folder, or no file of this corpus in it.
    """
    root, corpus = Path(root), _known_name(corpus)
    if corpus == DEMO:
        return read_demo(root)
    files, faults = _search(root)
    return _read(root, CORPORA[corpus], [p for p in files if not _is_synthetic(p.parent)], faults)


def _read(root: Path, rule: Corpus, files: Sequence[Path], unread: Sequence[Fault]) -> Listing:
    if not files:
        raise CorpusError(f"{root}: no audio file in it but the synthetic demo corpus")
    utterances, faults = [], list(unread)
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
    folder = root if root.is_dir() else root.parent
    return Listing(rule.name, folder, tuple(utterances), tuple(faults))


def read_demo(folder: Path = DEMO_CORPUS) -> Listing:
    """List synthetic clips, those that ship with the project or `ser_embed.demo` made, under a
    corpus name of their own.
    """
    files, faults = _search(folder)
    clips = [path for path in files if _is_synthetic(path.parent)]
    if not clips:
        raise CorpusError(
            f"{folder}: none of its {len(files)} audio files is of the synthetic demo corpus, so "
            "--corpus demo doesn't fit; leave it out, or name the corpus"
        )
    return _read(folder, CORPORA["ravdess"], clips, faults).renamed(DEMO)


def discover(folder: Path) -> list[Listing]:
    """Return every known corpus found under a folder, each once, in the order of `CORPORA`.

    Files that belong to none are named in a warning; those among a corpus's files are its faults.
    A demo corpus is returned only where there is no other.

    Raises:
        CorpusError: No such folder, or none of the audio files in it is of a known corpus.
    """
    files, unread = _search(folder, may_be_empty=True)
    real = [path for path in files if not _is_synthetic(path.parent)]
    if files and not real:
        return [read_demo(folder)]
    if len(real) < len(files):
        log.info("%s: the synthetic demo corpus in it is left out beside real ones", folder)
    names = {path: recognise(path) for path in real}
    rest = [path for path, utterance in names.items() if not utterance]
    if rest and len(rest) == len(real):
        raise CorpusError(
            f"{folder}: none of its {len(real)} audio files is named as a known corpus "
            f"({', '.join(CORPORA)}) names them, for instance {real[0].relative_to(folder)}. For a "
            "corpus of your own write a CSV with the header path,emotion"
        )
    if rest:
        log.warning(
            "%s: %d audio files are named as no known corpus names them and are left out, for "
            "instance %s; for a corpus of your own write a CSV with the header path,emotion",
            folder, len(rest), rest[0].relative_to(folder),
        )  # fmt: skip
    listings = []
    for name, rule in CORPORA.items():
        clips = [path for path, found in names.items() if found and found.corpus == name]
        if clips:
            root = Path(os.path.commonpath([path.parent for path in clips]))
            among = {path for path in rest if path.is_relative_to(root)}
            faults = [one for one in unread if one[0].is_relative_to(root)]
            rest = [path for path in rest if path not in among]
            unread = [one for one in unread if one not in faults]
            listings.append(_settled(_read(root, rule, sorted([*clips, *among]), faults)))
    if unread and not listings:
        path, reason = unread[0]
        raise CorpusError(f"{folder}: no audio file in it; {path}: {reason}")
    for path, reason in unread:
        log.warning("%s: %s", path, reason)
    return listings


def _search(root: Path, may_be_empty: bool = False) -> tuple[list[Path], list[Fault]]:
    """Return the audio files under a folder, and what in it can't be looked into."""
    try:
        found = AudioFile.search(root)
    except AudioError as error:
        raise CorpusError(str(error)) from error
    packed = sorted(_ARCHIVES & set(found.others))
    if found.files and packed:
        n = sum(found.others[ending] for ending in packed)
        log.warning(
            "%s: %d archives in it (%s) are not looked into; if they hold clips, unpack them",
            root, n, " ".join(packed),
        )  # fmt: skip
    if not found.files and not may_be_empty:
        seen = ", ".join(f"{n} {ending}" for ending, n in found.others.most_common(8))
        reasons = "".join(f"; {path}: {reason}" for path, reason in found.faults[:3])
        raise CorpusError(
            f"{root}: no audio file in it ({' '.join(AudioFile.ENDINGS)})"
            + (f"; it holds {seen}" if seen else "") + reasons
        )  # fmt: skip
    return found.files, found.faults


@lru_cache(maxsize=100_000)
def _is_synthetic(folder: Path) -> bool:
    """Return whether a folder holds clips of the demo corpus, the bundled or one of a user's."""
    real = folder.resolve()
    if real.is_relative_to(DEMO_CORPUS.resolve()):
        return True
    for readme in (real / "README.md", real.parent / "README.md"):
        try:
            with readme.open(encoding="utf-8", errors="replace") as text:
                if text.readline().strip() == DEMO_TITLE:
                    return True
        except OSError:
            continue
    return False


def _no_match(root: Path, rule: Corpus, files: Sequence[Path]) -> str:
    others = Counter(found.corpus for path in files if (found := recognise(path)))
    text = (
        f"{root}: none of its {len(files)} audio files is named as {rule.name} names them "
        f"({rule.rule}), for instance {files[0].name}"
    )
    if others:
        return f"{text}. They look like {', '.join(f'{k} ({v} files)' for k, v in others.items())}"
    return f"{text}. For a corpus of your own write a CSV with the header path,emotion"


# --- files in conflict -----------------------------------------------------------------------


def _settled(listing: Listing) -> Listing:
    """Make faults of files that contradict one another, whichever comes first.

    Raises:
        CorpusError: Nothing is left.
    """
    faults = _one_name_other_bytes(listing) if listing.corpus in (*CORPORA, DEMO) else {}
    rest = [u for u in listing.utterances if u.path not in faults]
    clashing = _equal_bytes_other_labels(rest, listing.root)
    kept = tuple(u for u in rest if id(u) not in clashing)
    if len(kept) == len(listing.utterances):
        return listing
    for utterance in rest:
        if id(utterance) in clashing:
            faults.setdefault(utterance.path, clashing[id(utterance)])
    log.warning(
        "%s: files that contradict one another or are copies: %d", listing.corpus, len(faults)
    )
    if not kept:
        path, reason = next(iter(faults.items()))
        raise CorpusError(
            f"{listing.root}: none of its {len(faults)} clips can be used; the first is "
            f"{path}: {reason}"
        )
    return replace(listing, utterances=kept, faults=(*listing.faults, *faults.items()))


def _one_name_other_bytes(listing: Listing) -> dict[Path, str]:
    """Return the reasons by path: a known corpus has one recording of a name."""
    groups: dict[tuple[str, str], list[Path]] = {}
    takes: dict[str, set[Path]] = {}
    rule = CORPORA["ravdess" if listing.corpus == DEMO else listing.corpus]
    for utterance in listing.utterances:
        path, key = utterance.path, rule.key(utterance.path)
        groups.setdefault((path.stem.upper() + key, path.suffix.lower()), []).append(path)
        takes.setdefault(key, set()).add(path)
    faults: dict[Path, str] = {}
    for paths in groups.values():
        if len(paths) == 1:
            continue
        digests = {path: _digest(path) for path in paths}
        first = _relative(paths[0], listing.root)
        if len(set(digests.values())) > 1:
            names = ", ".join(_relative(path, listing.root) for path in paths)
            reason = f"name conflict: {names} have one name and other bytes; keep one of them"
            faults |= dict.fromkeys(paths, reason)
        else:  # files of the very same name are told apart by nothing, and kept once
            others = [path for path in paths if path.name != paths[0].name]
            faults |= dict.fromkeys(others, f"has the bytes of {first}, which is kept")
    for paths_of_key in takes.values():
        stems = sorted({path.stem for path in paths_of_key}, key=rule.preference)
        if len({stem.upper() for stem in stems}) > 1:
            for path in paths_of_key:
                if path.stem.upper() != stems[0].upper():
                    faults.setdefault(path, f"the same utterance as {stems[0]}, which is kept")
    return faults


def _equal_bytes_other_labels(clips: Sequence[Utterance], root: Path) -> dict[int, str]:
    """Return the reasons by the identity of the object: one sound has one label and one speaker.

    Files are compared by size first, then by a piece, and only what is alike in both in whole.
    """
    alike: list[Sequence[Utterance]] = [clips]
    for look in (_size, _piece, _digest):
        parts: list[Sequence[Utterance]] = []
        for group in alike:
            by: dict[object, list[Utterance]] = {}
            known: dict[Path, object] = {}
            for clip in group:
                if clip.path not in known:
                    known[clip.path] = look(clip.path)
                by.setdefault(known[clip.path], []).append(clip)
            parts += [part for key, part in by.items()
                      if key is not None and len({clip.path for clip in part}) > 1]  # fmt: skip
        alike = parts
    faults: dict[int, str] = {}
    for group in alike:
        ranges: dict[tuple[float | None, float | None], list[Utterance]] = {}
        for clip in group:
            ranges.setdefault((clip.start, clip.end), []).append(clip)
        for same in ranges.values():
            if reason := _contradiction(same, root):
                faults |= {id(clip): reason for clip in same}
    return faults


def _contradiction(clips: Sequence[Utterance], root: Path) -> str:
    """Return in words what clips of the same bytes differ in, "" if nothing."""
    if len(clips) < 2:
        return ""
    words = {
        "emotions": {clip.emotion.lower() for clip in clips},
        "speakers": {clip.speaker for clip in clips} - {""},
        "intensities": {clip.intensity for clip in clips} - {""},
    }
    if len({clip.path.name for clip in clips}) == 1:  # of which one would be kept
        words["splits"] = {clip.part for clip in clips}
    found = [f"{len(w)} {what} ({', '.join(sorted(w))})" for what, w in words.items() if len(w) > 1]
    if not found:
        return ""
    names = [_relative(clip.path, root) for clip in clips]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return (
        f"label conflict: {', '.join(names[:4])}{more} have the same bytes and {', '.join(found)}"
    )


def _relative(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size or None
    except (OSError, ValueError):
        return None


def _piece(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            file.seek(path.stat().st_size // 2)
            return file.read(4096)
    except OSError:
        return None


def _digest(path: Path) -> str | None:
    try:
        return AudioFile(path).sha256()
    except AudioError:
        return None


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
    known = file.stem.lower() in (*CORPORA, DEMO)
    ending = file.suffix.lower().removeprefix(".") or "table"
    corpus = f"{file.stem}-{ending}" if known or ending not in ("csv", "table") else file.stem
    try:
        clips, faults = read_rows(file, corpus)
    except OSError as error:
        raise CorpusError(f"{file}: can't be read as CSV ({error})") from error
    return Listing(corpus, file.parent, tuple(clips), tuple(faults))
