"""What long work shows: a bar on a terminal, a line a minute elsewhere, nothing when quiet."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ser_embed import progress as module
from ser_embed.progress import progress, track

WORK = """
import logging, time
from ser_embed.progress import progress
logging.basicConfig(level=logging.INFO, format="%(message)s")
with progress("encode ravdess", 4, "clip") as bar:
    for n in range(4):
        time.sleep(0.2)
        bar.advance()
        bar.note(f"loss {n}")
print("done")
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
def test_a_terminal_gets_a_bar_with_count_rate_and_note(project: Path, tmp_path: Path) -> None:

    script = tmp_path / "work.py"
    script.write_text(WORK)
    code = "import pty, sys; sys.exit(pty.spawn([sys.executable, sys.argv[1]]))"

    done = subprocess.run(
        [sys.executable, "-c", code, script], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(project), "TERM": "xterm", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    for words in ("encode ravdess", "4/4", "clips/s", "loss 2", "done"):
        assert words in done.stdout, done.stdout


def test_elsewhere_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO, logger="ser_embed")
    with progress("encode", 400, "clip", done=100) as bar:
        for _ in range(300):
            now[0] += 0.5
            bar.advance()
    assert [record.message for record in caplog.records] == [
        "encode: 220 of 400 clips, 2.0 clips/s, 1:30 left",
        "encode: 340 of 400 clips, 2.0 clips/s, 0:30 left",
    ]


def test_bytes_are_megabytes_and_an_unknown_total_has_no_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO, logger="ser_embed")
    with progress("fetch", None, "B") as bar:
        now[0] = 100.0
        bar.advance(250e6)
    assert caplog.messages == ["fetch: 250 MB, 2.5 MB/s"]


def test_quiet_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LINE_SECONDS", 0.0)
    caplog.set_level(logging.INFO, logger="ser_embed")
    assert list(track([1, 2, 3], "count", "clip", quiet=True)) == [1, 2, 3]
    assert not caplog.records
    assert list(track([1, 2, 3], "count", "clip")) == [1, 2, 3]
    assert len(caplog.records) == 3
