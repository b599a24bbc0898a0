"""The ledger against its rules written out, and its memory."""

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_embed.store.ledger import Ledger
from ser_embed.store.table import FAILED_CLIP, STORED, ClipRow

ROW = ClipRow(
    "", "tess", "tess:oaf", "female", "sad", "", "", "", "", 1.5, "", STORED, "", 0
)  # fmt: skip

PATHS = st.sampled_from(["a.wav", "x/a.wav", "y/a.wav", "b.wav", "é\udcff.wav"])
HASHES = st.sampled_from(["1", "2", "3"])


@st.composite
def rows(draw: st.DrawFn) -> ClipRow:
    failed = draw(st.integers(0, 3)) == 0
    row = replace(
        ROW, path=draw(PATHS), sha256=draw(HASHES), emotion=draw(st.sampled_from(["sad", "happy"])),
        checksum=draw(st.integers(0, 2**32 - 1)),
    )  # fmt: skip
    if not failed:
        return row
    return replace(row, state=FAILED_CLIP, reason="bad", sha256=draw(st.sampled_from(["", "1"])))


def expected(
    files: list[list[ClipRow]], found: list[ClipRow]
) -> tuple[list[tuple[ClipRow, int, int]], int]:
    """The table and the number of clips kept, by the rule written out."""
    known = {
        row.identity: (file, line, row)
        for file, members in enumerate(files) for line, row in enumerate(members)
        if row.state == STORED
    }  # fmt: skip
    final = {row.identity if row.state == STORED else (row.path, ""): row for row in found}
    read = {row.path for row in final.values() if row.sha256}
    order = [row.identity for members in files for row in members if row.state == STORED]
    last = sorted(known.values(), key=lambda one: len(order) - order[::-1].index(one[2].identity))
    newest = {row.path: row for _, _, row in last}
    kept = [r for r in newest.values() if r.identity not in final and r.path not in read]
    final.update({row.identity: row for row in kept})
    table = []
    for row in sorted(final.values(), key=lambda r: (r.path.encode("utf-8", "surrogateescape"),
                                                     r.sha256, r.state == STORED)):  # fmt: skip
        if row.state == STORED:
            file, line, old = known[row.identity]
            table.append((replace(row, checksum=old.checksum), file, line))
        else:
            table.append((row, -1, -1))
    return table, len(kept)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.lists(rows(), max_size=5), max_size=4), st.data())
def test_it_keeps_to_its_rules(files: list[list[ClipRow]], data: st.DataObject) -> None:
    stored = [row for members in files for row in members if row.state == STORED]
    choice = st.one_of(st.sampled_from(stored), rows().filter(lambda r: r.state != STORED)) \
        if stored else rows().filter(lambda r: r.state != STORED)  # fmt: skip
    found = data.draw(st.lists(choice, max_size=6))
    ledger = Ledger()
    for number, members in enumerate(files):
        ledger.add_stored((100 * number + line, row) for line, row in enumerate(members))
    identities = {row.identity for row in stored}
    assert set(ledger) == identities
    assert len(ledger) == len(identities)
    for row in found:
        ledger.record(row)
    table, kept = expected(files, found)
    assert ledger.keep_the_rest() == kept
    failed_before = {
        (row, 100 * number + line)
        for number, members in enumerate(files) for line, row in enumerate(members)
        if row.state != STORED
    }  # fmt: skip
    for (line, row), (wanted, file, wanted_line) in zip(ledger.table(), table, strict=True):
        assert row == wanted
        if row.state == STORED:
            assert line == 100 * file + wanted_line
        else:
            assert line == -1 or (row, line) in failed_before


def test_what_is_known_is_found() -> None:
    ledger = Ledger()
    row = replace(ROW, path="x/ü\udcff.wav", sha256="ab", checksum=7)
    failed = replace(ROW, path="y", state=FAILED_CLIP)
    ledger.add_stored([(0, failed), (1, row)])
    assert row.identity in ledger
    assert ledger[row.identity] == (1, row)
    assert ("y", "") not in ledger
    with pytest.raises(KeyError, match="nothing"):
        _ = ledger["nothing", "ab"]
    assert [ledger.is_new(("a", "1")), ledger.is_new(("a", "1")), ledger.is_new(("a", "2"))] == [
        True, False, True
    ]  # fmt: skip


GROW = """
import resource, sys
from ser_embed.store.ledger import Ledger
from ser_embed.store.table import ClipRow
def rows(n):  # each with texts of its own, as those of a file are
    for i in range(n):
        yield ClipRow(
            f"speaker_{i % 999:04d}/session_{i % 7}/utterance_{i:09d}.wav", "corpus",
            sys.intern(f"corpus:{i % 999}"), "female", "sad", "", sys.intern(str(i % 100)), "",
            "", 1.5 + i / n, f"{i:064x}", "stored", "", 2**31 + i,
        )
def go(n):
    ledger = Ledger()
    ledger.add_stored(enumerate(rows(n)))
    for row in rows(n):
        ledger.is_new(row.identity)
        ledger.record(row)
    assert ledger.keep_the_rest() == 0
    assert len(ledger.table()) == n
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = go(2000)
print(go(int(sys.argv[1])) - before)
"""


def test_a_million_clips_fit_in_a_gigabyte() -> None:
    pytest.importorskip("resource", reason="there is no resource module on this system")
    done = subprocess.run(
        [sys.executable, "-c", GROW, "100000"], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 100  # MB
