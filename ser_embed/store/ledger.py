"""What is stored and what a run found, by clip: about 0.7 kB of memory for each."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ser_embed.store.table import LEFT_OUT, ClipRow, Identity
from ser_embed.store.table import Place as Range

__all__ = ["Ledger", "Place"]


class Place(NamedTuple):
    """A row, and where its features are: no file and line -1 of a clip that failed."""

    file: Path | None
    line: int
    row: ClipRow


class _Clip:
    """A clip that is in a file, that this run has come across, or both."""

    __slots__ = ("place", "row", "seen")

    def __init__(self) -> None:
        self.seen = False  # by this run
        self.place: Place | None = None  # in a file
        self.row: ClipRow | None = None  # in this run's table

    def share(self) -> None:
        """Keep one row where the file's and this run's differ in the checksum alone."""
        if self.place and self.row and self.row is not self.place.row:
            checked = replace(self.row, checksum=self.place.row.checksum)
            self.row = self.place.row if checked == self.place.row else checked


class Ledger(Mapping[Identity, Place]):
    """The clips of one store while it is written; as a mapping, those that are in a file."""

    def __init__(self) -> None:
        self._clips: dict[Identity, _Clip] = {}
        self._failed: dict[Range, ClipRow] = {}  # or left out
        self._n_stored = 0

    def __getitem__(self, identity: Identity) -> Place:
        """Return where a clip is."""
        clip = self._clips.get(identity)
        if clip is None or clip.place is None:
            raise KeyError(identity)
        return clip.place

    def __len__(self) -> int:
        """Return how many clips are in a file."""
        return self._n_stored

    def __iter__(self) -> Iterator[Identity]:
        """Yield the clips that are in a file."""
        return (identity for identity, clip in self._clips.items() if clip.place)

    def add_stored(self, places: Iterable[tuple[Path, int, ClipRow]]) -> None:
        """Add rows with the file and line that each is in; of a clip the last counts."""
        for file, line, row in places:
            if not row.is_stored:
                continue
            clip = self._clips.pop(row.identity, None) or _Clip()
            self._n_stored += clip.place is None
            clip.place = Place(file, line, row)
            clip.share()
            self._clips[row.identity] = clip  # at the end, as the newest

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
        newest = {clip.place.row.place: clip for clip in self._clips.values() if clip.place}
        kept = [
            clip for place, clip in newest.items()
            if not clip.row and (place if partial else place[0]) not in read
        ]  # fmt: skip
        for clip in kept:
            clip.row = clip.place.row if clip.place else None
        return len(kept)

    def table(self) -> list[Place]:
        """Return this run's rows by path, with the file and line of the stored ones.

        A stored row has the checksum of its features as they were written, whatever else of it
        (its labels) is new.
        """
        places = [Place(None, -1, row) for row in self._failed.values()]
        for clip in self._clips.values():
            if clip.place and clip.row:
                same = clip.row is clip.place.row
                places.append(clip.place if same else clip.place._replace(row=clip.row))
        places.sort(key=lambda place: (place.row.sha256, place.row.start, place.row.end))
        if all(place.row.path.isascii() for place in places):  # the same order, without a copy
            places.sort(key=lambda place: place.row.path)
        else:
            places.sort(key=lambda place: place.row.path.encode("utf-8", "surrogateescape"))
        return places
