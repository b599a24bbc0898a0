"""Every instant of a run, one after the other: what a kill there leaves is whole, and goes on."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_writer import clip, content, fill, finish, opened, rows

from ser_embed.errors import StoreError
from ser_embed.store import journal as journal_module
from ser_embed.store.checking import verify
from ser_embed.store.journal import JournaledFile, journal_of
from ser_embed.store.reader import FeatureStore


class Instants:
    """Keeps a copy of a folder before and after everything that is done to a disk."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.copies, self.stored = folder, folder.parent / "instants", 0
        self.seen: set[object] = set()
        self.reported: list[int] = []  # how many clips were stored for sure at each
        self.copies.mkdir()
        write = journal_module._write_at

        def torn_write(raw: Any, offset: int, data: memoryview) -> None:
            write(raw, offset, data[: len(data) // 2])  # a kill comes in the middle as well
            self.copy()
            write(raw, offset, data)

        monkeypatch.setattr(journal_module, "_write_at", torn_write)
        for owner, name in ((os, "replace"), (os, "unlink"), (os, "fsync"), (Path, "replace"),
                            (Path, "unlink")):  # fmt: skip
            monkeypatch.setattr(owner, name, self.watched(getattr(owner, name)))

    def watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def _call(*arguments: Any, **options: Any) -> Any:
            self.copy()
            result = call(*arguments, **options)
            self.copy()
            return result

        return _call

    def copy(self) -> None:
        files = [file for file in sorted(self.folder.iterdir()) if file.name[0] != "."]
        state = tuple((file.name, hash(file.read_bytes())) for file in files), self.stored
        if state in self.seen:
            return
        self.seen.add(state)
        place = self.copies / str(len(self.reported))
        place.mkdir()
        for file in files:
            shutil.copyfile(file, place / file.name)
        self.reported.append(self.stored)


def test_a_kill_at_every_instant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    path = folder / "s.h5"
    instants = Instants(folder, monkeypatch)
    for numbers, added in (((0, 2, 4), 3), ((1, 6, 3), 6)):  # a new store, then one that grows
        with opened(path) as writer:
            for i in numbers:
                writer.add([clip(i)])
                writer.flush()
                instants.stored += 1
            finish(writer, rows(numbers))
        assert instants.stored == added
    with opened(path) as writer:  # labels, and less
        finish(writer, rows([0, 1, 6]), prune=True)
    monkeypatch.undo()
    wanted = [{clip(i).row.path for i in numbers}
              for numbers in ((), (0, 2, 4), (0, 1, 2, 3, 4, 6), (0, 1, 6))]  # fmt: skip
    print(len(instants.reported))
    assert len(instants.reported) > 50
    seen = set()
    whole = tmp_path / "whole" / "s.h5"
    fill(whole, range(8))
    for number, reported in enumerate(instants.reported):
        place = instants.copies / str(number)
        there = [file for file in place.glob("s.h5*") if file.suffix in (".h5", ".partial")]
        for file in there:
            assert verify(file) == []
        listed: set[str] = set()
        if (place / "s.h5").exists():
            with FeatureStore(place / "s.h5") as store:
                listed = {row.path for row in store.rows}
        assert listed in wanted
        seen.add(len(listed))
        with opened(place / "s.h5") as writer:
            assert len(writer.known) in ((3,) if listed == wanted[3] else (reported, reported + 1))
            writer.add([clip(i) for i in range(8) if clip(i).row.identity not in writer.known])
            finish(writer, rows(range(8)))
        assert verify(place / "s.h5") == []
        mine, other = content(place / "s.h5"), content(whole)
        assert mine[:5] == other[:5]
        assert sorted(file.name for file in place.iterdir() if file.name[0] != ".") == ["s.h5"]
    assert seen == {0, 3, 6} | {3}


def test_a_journal_is_laid_over_what_is_read(tmp_path: Path) -> None:
    """As where the disk can't be written to after a kill."""
    path = tmp_path / "s.h5"
    fill(path, range(3))
    write, torn = journal_module._write_journal, []

    def keep(*arguments: Any) -> None:
        write(*arguments)
        torn[:] = path.read_bytes(), journal_of(path).read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "_write_journal", keep)
        fill(path, range(6))
    wanted = content(path)
    path.write_bytes(torn[0])  # nothing of the last journal was copied
    assert content(path) != wanted
    journal_of(path).write_bytes(torn[1])
    assert content(path) == wanted
    assert path.read_bytes() == torn[0]
    journal_of(path).write_bytes(torn[1][:-9] + b"x" + torn[1][-8:])
    with pytest.raises(StoreError, match=r"damaged .*journal"):
        FeatureStore(path)


def test_a_new_store_has_nothing_to_do_with_a_journal_of_another(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    journal_of(path).write_bytes(b"of a store that was deleted")
    fill(path, range(3))
    assert verify(path) == []
    assert not journal_of(path).exists()


def test_bytes_come_back(tmp_path: Path) -> None:
    """Below, above and over the end of the last commit, in any order."""
    path = tmp_path / "file"
    disk = JournaledFile(path, "x")
    disk.write(bytes(range(256)) * 40)
    disk.commit()
    disk.close()
    original = path.read_bytes()
    for ends in ("abort", "commit"):
        disk = JournaledFile(path, "w")
        mirror = bytearray(original)
        for offset, n in ((4000, 200), (10_200, 100), (0, 8), (8190, 4000), (4100, 10)):
            disk.seek(offset)
            disk.write(b"x" * n)
            mirror[offset : offset + n] = b"x" * n
        disk.seek(0)
        assert disk.read(len(mirror)) == mirror
        assert path.read_bytes()[: len(original)] == original
        getattr(disk, ends)()
        disk.close()
        assert path.read_bytes() == (original if ends == "abort" else bytes(mirror))
        assert not journal_of(path).exists()
