"""What is stored and what a run found, by clip: about 0.7 kB of memory for each."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import NamedTuple

from ser_embed.store.table import COLUMNS, LEFT_OUT, ClipRow, Identity
from ser_embed.store.table import Place as Range

__all__ = ["Ledger", "Place"]


_but_checksum = attrgetter(*(name for name in COLUMNS if name != "checksum"))


class Place(NamedTuple):
    """A row, and its line in the file: -1 if that doesn't have it."""

    line: int
    row: ClipRow


class _Clip:
    """A clip that is in a file, that this run has come across, or both."""

    __slots__ = ("line", "row", "seen", "stored")

    def __init__(self) -> None:
        self.seen = False  # by this run
        self.line = -1  # in the file
        self.stored: ClipRow | None = None  # in the file
        self.row: ClipRow | None = None  # in this run's table

    def share(self) -> None:
        """Keep one row where the file's and this run's differ in the checksum alone."""
        if self.stored and self.row and self.row is not self.stored:
            if _but_checksum(self.row) == _but_checksum(self.stored):
                self.row = self.stored
            elif self.row.checksum != self.stored.checksum:
                self.row = replace(self.row, checksum=self.stored.checksum)


class Ledger(Mapping[Identity, Place]):
    """The clips of one store while it is written; as a mapping, those that are in a file."""

    def __init__(self) -> None:
        self._clips: dict[Identity, _Clip] = {}
        self._failed: dict[Range, ClipRow] = {}  # or left out
        self._failed_before: dict[Range, Place] = {}  # in a file
        self._n_stored = 0

    def __getitem__(self, identity: Identity) -> Place:
        """Return where a clip is."""
        clip = self._clips.get(identity)
        if clip is None or clip.stored is None:
            raise KeyError(identity)
        return Place(clip.line, clip.stored)

    def __len__(self) -> int:
        """Return how many clips are in a file."""
        return self._n_stored

    def __iter__(self) -> Iterator[Identity]:
        """Yield the clips that are in a file."""
        return (identity for identity, clip in self._clips.items() if clip.stored)

    def add_stored(self, places: Iterable[tuple[int, ClipRow]]) -> None:
        """Add rows with the line that each is in; of a clip the last counts."""
        for line, row in places:
            if not row.is_stored:
                self._failed_before[row.place] = Place(line, row)
                continue
            identity = row.identity
            clip = self._clips.pop(identity, None) or _Clip()
            self._n_stored += clip.stored is None
            clip.line, clip.stored = line, row
            clip.share()
            self._clips[identity] = clip  # at the end, as the newest

    def is_new(self, identity: Identity) -> bool:
        """Note that this run came across a clip; return whether for the first time."""
        clip = self._clips.setdefault(identity, _Clip())
        new, clip.seen = not clip.seen, True
        return new

    def record(self, row: ClipRow) -> None:
        """Add a row to this run's table, stored or failed; of two of a kind the last counts."""
        if not row.is_stored:
            self._failed[row.place] = row
            return
        clip = self._clips.setdefault(row.identity, _Clip())
        clip.row = row
        clip.share()

    def keep_the_rest(self, partial: bool = False) -> int:
        """Add stored clips that this run didn't find to its table; return how many.

        Of those of one place the newest counts, and only if this run didn't read that file: what
        can't be read now doesn't cost what was encoded of it. Other ranges of a file that was
        read are what it held before, unless this was a `partial` run, which took some clips only.
        """
        rows = [row for row in self._failed.values() if row.sha256 or row.state == LEFT_OUT]
        rows += [clip.row for clip in self._clips.values() if clip.row]
        read = {row.place if partial else row.path for row in rows}
        newest = {clip.stored.place: clip for clip in self._clips.values() if clip.stored}
        kept = [
            clip for place, clip in newest.items()
            if not clip.row and (place if partial else place[0]) not in read
        ]  # fmt: skip
        for clip in kept:
            clip.row = clip.stored
        return len(kept)

    def table(self) -> list[Place]:
        """Return this run's rows by path, each with its line.

        A stored row has the checksum of its features as they were written, whatever else of it
        (its labels) is new; a row that is as in the file is the same object.
        """
        places = []
        for where, row in self._failed.items():
            before = self._failed_before.get(where)
            places.append(before if before and before.row == row else Place(-1, row))
        for clip in self._clips.values():
            if clip.stored and clip.row:
                places.append(Place(clip.line, clip.row))
        if len({place.row.path for place in places}) < len(places):
            places.sort(key=lambda place: (place.row.sha256, place.row.start, place.row.end))
        if all(place.row.path.isascii() for place in places):  # the same order, without a copy
            places.sort(key=lambda place: place.row.path)
        else:
            places.sort(key=lambda place: place.row.path.encode("utf-8", "surrogateescape"))
        return places
