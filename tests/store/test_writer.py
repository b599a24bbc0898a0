"""Writing a store: killed at any moment, on a full disk, by two at once, beside readers."""

import contextlib
import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ser_embed.corpora.naming import Utterance
from ser_embed.errors import StoreError
from ser_embed.store import writer as writer_module
from ser_embed.store.checking import verify
from ser_embed.store.reader import FeatureStore
from ser_embed.store.settings import FeatureSettings
from ser_embed.store.table import ClipRow, EncodedClip
from ser_embed.store.writer import StoreWriter

SETTINGS = FeatureSettings(
    encoder="mini", weights="a" * 64, layer=4, pool="none", norm="frame", trim=True, seconds=3.0,
    fill="sample", dtype="float16", precision="fp32", seed=0,
)  # fmt: skip


def clip(i: int, frames: int = 5, width: int = 8) -> EncodedClip:
    """A clip whose content follows from its number."""
    rng = np.random.default_rng(i)
    row = ClipRow(
        f"{i % 7}/clip-{i:04d}.wav", "tess", "tess:oaf", "female", "sad", "", "", "", "",
        1.0 + i, f"{i:064x}", "stored", "", 0,
    )  # fmt: skip
    features = rng.uniform(-1, 1, (frames, width)).astype(np.float32)
    extrema = rng.normal(size=(frames, 2)).astype(np.float32)
    return EncodedClip(row, features, extrema, frames)


def rows(numbers: Sequence[int]) -> list[ClipRow]:
    return [clip(i)[0] for i in numbers]


def opened(path: Path) -> Any:
    return StoreWriter.open(path, SETTINGS, "tess", path.parent, trained=True, demo=False)


def finish(writer: StoreWriter, found: Iterable[ClipRow], **options: Any) -> dict[str, int]:
    """Finish a run that found these clips."""
    for row in found:
        writer.record(row)
    return writer.finish(**options)


def fill(path: Path, numbers: Sequence[int], **options: Any) -> dict[str, int]:
    """Add what isn't known yet and finish, as an extraction does."""
    with opened(path) as writer:
        writer.add([clip(i) for i in numbers if clip(i).row.identity not in writer.known])
        return finish(writer, rows(numbers), **options)


def content(path: Path) -> Any:
    with FeatureStore(path) as store:
        every = range(len(store))
        return (
            store.rows, store.frames.tolist(), store.read(every).tobytes(),
            store.read_range(every).tobytes(), store.settings, store.root,
        )  # fmt: skip


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


# --- ordinary use ------------------------------------------------------------------------------


def test_a_row_says_what_the_utterance_is(tmp_path: Path) -> None:
    utterance = Utterance(
        tmp_path / "a" / "x.wav", "tess", "tess:oaf", "female", "sad", "low", "t", "r", "test"
    )
    row = ClipRow.of(utterance, tmp_path, "ab", 2.5)
    assert row.path == "a/x.wav"
    assert (row.speaker, row.gender, row.emotion) == ("tess:oaf", "female", "sad")
    assert (row.intensity, row.text_id, row.recording, row.part) == ("low", "t", "r", "test")
    assert (row.seconds, row.sha256, row.state, row.reason) == (2.5, "ab", "stored", "")
    failed = ClipRow.of(utterance, tmp_path / "b", "", 0.0, "silent")
    assert failed.path == (tmp_path / "a" / "x.wav").as_posix()  # not under that root
    assert (failed.state, failed.reason) == ("failed", "silent")


def test_nothing_is_left_beside_a_finished_store(tmp_path: Path) -> None:
    assert fill(tmp_path / "s.h5", range(5)) == {"clips": 5, "kept": 0}
    assert left_over(tmp_path) == ["s.h5"]


def test_nothing_is_left_where_nothing_was_added(tmp_path: Path) -> None:
    with opened(tmp_path / "s.h5"):
        pass
    assert left_over(tmp_path) == []


def test_clips_are_stored_by_bytes_and_by_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "BLOCK_BYTES", 4 * 5 * 10 * 4)  # of four clips
    monkeypatch.setattr(writer_module, "BYTES_AHEAD", 0)
    with opened(tmp_path / "s.h5") as writer:
        known = []
        for i in range(10):
            writer.add([clip(i)])
            known.append(len(writer.known))
        assert known == [0, 0, 0, 4, 4, 4, 4, 8, 8, 8]
        assert writer.flush() == 2
        assert writer.flush() == 0
        monkeypatch.setattr(writer_module, "BLOCK_SECONDS", 0.0)
        writer.add([clip(10)])
        assert len(writer.known) == 11


def test_a_finished_store_is_not_written_again_without_need(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    fill(path, range(5))
    before = path.stat()
    fill(path, range(5))
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    fill(path, range(6))
    assert path.stat().st_ino == before.st_ino  # added to, not copied


def test_what_was_stored_keeps_its_bytes(tmp_path: Path) -> None:
    """Clips that come in later runs don't touch those of earlier ones."""
    path = tmp_path / "s.h5"
    fill(path, range(0, 20, 2))
    with FeatureStore(path) as store:
        earlier = {row.path: store.read([i]).tobytes() for i, row in enumerate(store.rows)}
    assert fill(path, range(20)) == {"clips": 20, "kept": 0}
    with FeatureStore(path) as store:
        now = {row.path: store.read([i]).tobytes() for i, row in enumerate(store.rows)}
    assert len(now) == 20
    assert all(now[name] == stored for name, stored in earlier.items())
    assert verify(path) == []
    whole = tmp_path / "whole.h5"
    fill(whole, range(20))
    assert content(whole) == content(path)


def test_clips_not_met_stay_unless_pruned(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    fill(path, range(6))
    assert fill(path, range(4)) == {"clips": 6, "kept": 2}
    assert fill(path, range(4), prune=True) == {"clips": 4, "kept": 0}
    with FeatureStore(path) as store:
        assert {row.path for row in store.rows} == {row.path for row in rows(range(4))}
    assert verify(path) == []


def test_a_clip_with_other_bytes_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    fill(path, range(3))
    old = clip(1)[0]
    changed = replace(old, sha256="f" * 64)
    with opened(path) as writer:
        assert changed.identity not in writer.known
        writer.add([clip(77)._replace(row=changed)])
        totals = finish(writer, [clip(0)[0], changed, clip(2)[0]])
    assert totals == {"clips": 3, "kept": 0}
    with FeatureStore(path) as store:
        (i,) = [i for i, row in enumerate(store.rows) if row.path == old.path]
        assert store.rows[i].sha256 == "f" * 64
        np.testing.assert_array_equal(store.read([i])[0], clip(77)[1].astype(np.float16))


def test_new_labels_need_no_features(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    fill(path, range(3))
    before = content(path)
    relabelled = [replace(row, emotion="angry") for row in rows(range(3))]
    with opened(path) as writer:
        assert finish(writer, relabelled) == {"clips": 3, "kept": 0}
    after = content(path)
    assert [row.emotion for row in after[0]] == ["angry"] * 3
    assert after[1:4] == before[1:4]
    assert verify(path) == []


def test_a_longer_clip_comes_last(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with opened(path) as writer:
        for i, frames in ((0, 3), (1, 7), (2, 2)):
            writer.add([clip(i, frames)])
            writer.flush()
        finish(writer, rows(range(3)))
    with FeatureStore(path) as store:
        assert store.shape == (7, 8)
        assert store.frames.tolist() == [3, 7, 2]
    assert verify(path) == []


def test_failed_clips_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    failed = replace(clip(0)[0], state="failed", sha256="", reason="silent")
    with opened(path) as writer:
        assert finish(writer, [failed]) == {"clips": 1, "kept": 0}
    with FeatureStore(path) as store:
        assert store.rows == [failed]
    assert verify(path) == []


def test_torn_files_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    path = tmp_path / "mine[1].h5"  # as a CSV of that name gives
    for torn in ("mine[1].h5.99.tmp", "mine[1].h5.partial.journal.tmp"):
        (tmp_path / torn).write_bytes(b"half")
    fill(path, range(3))
    assert left_over(tmp_path) == ["mine[1].h5"]


def test_a_damaged_unfinished_store_is_named(tmp_path: Path) -> None:
    with opened(tmp_path / "s.h5") as writer:
        writer.add([clip(0)])
        writer.flush()
    with pytest.raises(StoreError, match="isn't finished"):
        FeatureStore(tmp_path / "s.h5")
    part = tmp_path / "s.h5.partial"
    part.write_bytes(part.read_bytes()[:700])
    with pytest.raises(StoreError, match=f"{part}: damaged"), opened(tmp_path / "s.h5"):
        pass


def test_what_nothing_refers_to_leaves_the_file(tmp_path: Path) -> None:
    """Once that is much of it; until then frames stay where they are."""
    path = tmp_path / "s.h5"
    with opened(path) as writer:
        writer.add([clip(i, 300, 128) for i in range(50)])
        finish(writer, rows(range(50)))
    whole, inode = path.stat().st_size, path.stat().st_ino
    fill(path, range(1, 50), prune=True)
    assert path.stat().st_ino == inode
    fill(path, range(1, 20), prune=True)
    assert path.stat().st_size < 0.4 * whole
    assert verify(path) == []
    with FeatureStore(path) as store:
        assert {row.path for row in store.rows} == {row.path for row in rows(range(1, 20))}


def test_an_error_of_the_caller_is_passed_on(tmp_path: Path) -> None:
    """And leaves neither the lock nor what is half done behind."""
    path = tmp_path / "s.h5"

    def stumble() -> None:
        with opened(path) as writer:
            writer.add([clip(0)])
            writer.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stumble()
    with opened(path) as writer:
        assert set(writer.known) == {clip(0)[0].identity}


# --- killed ----------------------------------------------------------------------------------

# Imports once and forks, as every process of its own would import for seconds.
NURSERY = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_writer import clip, content, fill, finish, opened, rows, verify

folder, total = Path(sys.argv[2]), int(sys.argv[3])
store, report = folder / "s.h5", folder / "report"
rng = np.random.default_rng(5)

def work():
    told = os.open(report, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    with opened(store) as writer:
        waiting, met = [], []
        for i in range(total):
            met.append(i)
            if clip(i)[0].identity in writer.known:
                continue
            writer.add([clip(i)])
            waiting.append(i)
            if len(waiting) == 9:
                assert writer.flush() == 9
                os.write(told, "".join(f"{i}\\n" for i in waiting).encode())
                waiting = []
            if i % 30 == 29:  # finishing must stand a kill as well
                finish(writer, rows(met))
                os.write(told, "".join(f"{i}\\n" for i in waiting).encode())
                return

started = time.monotonic()
work()
length = time.monotonic() - started
lost, kills, reported = [], 0, set()
while kills < 15:
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    time.sleep(float(rng.uniform(0, 1.3 * length)))
    os.kill(child, signal.SIGKILL)
    kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    reported |= {int(line) for line in report.read_text().split()} if report.exists() else set()
    with opened(store) as writer:
        lost += [i for i in reported if clip(i)[0].identity not in writer.known]
    assert not store.exists() or verify(store) == []
fill(store, range(total))
fill(folder / "whole.h5", range(total))
print(json.dumps({
    "lost": lost, "kills": kills, "reported": len(reported),
    "equal": content(store) == content(folder / "whole.h5"), "faults": verify(store),
    "files": sorted(p.name for p in folder.iterdir() if p.suffix != ".lock"),
}))
"""


def test_killed_at_any_moment_nothing_reported_is_lost(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = run("-c", NURSERY, Path(__file__).parent, tmp_path, 400)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["lost"] == []
    assert told["kills"] == 15
    assert told["reported"] > 50
    assert told["equal"]
    assert told["faults"] == []
    assert told["files"] == ["report", "s.h5", "whole.h5"]


def test_a_short_run_keeps_what_a_killed_one_left(tmp_path: Path) -> None:
    """Its parts hold clips that the next run, with a limit or from another root, doesn't meet."""
    path = tmp_path / "s.h5"
    fill(path, range(2))
    with opened(path) as writer:  # killed before it could finish
        for i in range(2, 8):
            writer.add([clip(i)])
        writer.flush()
    assert fill(path, [3, 8]) == {"clips": 9, "kept": 7}
    with FeatureStore(path) as store:
        assert {row.path for row in store.rows} == {row.path for row in rows(range(9))}
    with opened(path) as writer:
        writer.add([clip(9)])
        writer.flush()
    assert fill(path, range(3), prune=True) == {"clips": 3, "kept": 0}
    assert verify(path) == []


@pytest.mark.parametrize("moment", np.linspace(0, 0.02, 21))
def test_an_interrupt_loses_no_clip(moment: float, tmp_path: Path) -> None:
    with opened(tmp_path / "s.h5") as writer:
        writer.add([clip(i, 100, 64) for i in range(60)])
        timer = threading.Timer(moment, os.kill, (os.getpid(), signal.SIGINT))
        with contextlib.suppress(KeyboardInterrupt):
            timer.start()
            writer.flush()
            timer.join()
        writer.flush()
        assert len(writer.known) == 60
        finish(writer, rows(range(60)))
    assert verify(tmp_path / "s.h5") == []


# --- two at once -------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_writer import clip, opened
with opened(Path(sys.argv[2])) as writer:
    writer.add([clip(0)])
    writer.flush()
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_the_second_writer_hears_who_is_first(tmp_path: Path, project: Path) -> None:
    path = tmp_path / "s.h5"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(Path(__file__).parent), str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=project, env={**os.environ, "PYTHONPATH": str(project)},
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(StoreError, match=rf"s\.h5: process {holder.pid} on \S+ is extracting"):
            fill(path, range(3))
        fill(tmp_path / "other.h5", range(3))  # another store is free
        holder.send_signal(signal.SIGKILL)
    with opened(path) as writer:  # the lock dies with its holder, its parts don't
        assert set(writer.known) == {clip(0)[0].identity}


def test_the_same_process_can_not_hold_it_twice_either(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with opened(path):
        with pytest.raises(StoreError, match=f"process {os.getpid()} on"), opened(path):
            pass
        with pytest.raises(StoreError, match=f"process {os.getpid()} on"), opened(path):
            pass  # the first refusal left the first holder's name alone
    with opened(path):
        pass


# --- a full disk -------------------------------------------------------------------------------


@contextlib.contextmanager
def tiny_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of a megabyte or two."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"mounting a small file system needs root ({mounted.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def big(i: int) -> EncodedClip:
    return clip(i, frames=100, width=128)  # 26 kB


def add_all(writer: StoreWriter, total: int) -> None:
    for i in range(total):
        if clip(i)[0].identity not in writer.known:
            writer.add([big(i)])
            writer.flush()


@pytest.mark.skipif(os.name != "posix", reason="there is no mount")
def test_a_full_disk_keeps_what_is_stored(tmp_path: Path) -> None:
    with tiny_disk(tmp_path, "1m") as disk:
        path = disk / "s.h5"
        with (
            pytest.raises(StoreError, match=r"can't be written .*free some space.*--features-dir"),
            opened(path) as writer,
        ):
            add_all(writer, 60)
        part = disk / "s.h5.partial"
        assert left_over(disk) == [part.name]
        with FeatureStore(part) as store:
            stored = len(store)
        assert 10 < stored < 60
        assert verify(part) == []
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        with opened(path) as writer:
            assert len(writer.known) == stored
            add_all(writer, 60)
            finish(writer, rows(range(60)))
        assert verify(path) == []
        assert len(FeatureStore(path)) == 60
        assert left_over(disk) == ["s.h5"]


@pytest.mark.skipif(os.name != "posix", reason="there is no mount")
@pytest.mark.parametrize("size", range(1400, 1800, 40))
def test_a_disk_that_is_full_while_a_finished_store_grows(size: int, tmp_path: Path) -> None:
    """Wherever that comes: among the frames, in the journal, when it is finished."""
    with tiny_disk(tmp_path, "1400k") as disk:
        path = disk / "s.h5"
        with opened(path) as writer:
            writer.add([big(i) for i in range(40)])
            finish(writer, rows(range(40)))
        earlier = content(path)
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)
        with opened(path) as writer:
            writer.add([big(i) for i in range(40, 52)])
            with contextlib.suppress(StoreError):
                finish(writer, rows(range(52)))
                earlier = None
        if earlier:
            assert content(path) == earlier
        assert verify(path) == []
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        with opened(path) as writer:
            writer.add([big(i) for i in range(40, 52) if clip(i).row.identity not in writer.known])
            finish(writer, rows(range(52)))
        assert verify(path) == []
        assert len(FeatureStore(path)) == 52
        assert left_over(disk) == ["s.h5"]


@contextlib.contextmanager
def limited(what: int, value: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def test_a_file_that_may_not_grow_is_like_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with opened(path) as writer:
        add_all(writer, 3)
        with (
            limited(resource.RLIMIT_FSIZE, 100_000),
            pytest.raises(StoreError, match="The 3 clips stored so far are kept"),
        ):
            add_all(writer, 5)
        assert left_over(tmp_path) == [".s.h5.holder", "s.h5.partial"]
        writer.flush()  # what could not be written isn't lost
        assert len(writer.known) == 4
        finish(writer, rows(range(4)))
    assert verify(path) == []
    assert left_over(tmp_path) == ["s.h5"]


# --- readers meanwhile -------------------------------------------------------------------------

READER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_writer import FeatureStore, content
path, seen, sizes = Path(sys.argv[2]), 0, set()
print("reading", flush=True)
while not path.with_name("stop").exists():
    with FeatureStore(path) as store:
        every = range(len(store))
        rows = store.rows
        features = store.read(every)
        time.sleep(0.01)
        assert (store.read(every) == features).all()
        for one, row in zip(features, rows):
            assert abs(one.astype(float)).sum() > 0, row
        sizes.add(len(store))
        seen += 1
print(seen, len(sizes))
"""


def test_readers_see_whole_runs_while_a_writer_adds(tmp_path: Path, project: Path) -> None:
    path = tmp_path / "s.h5"
    fill(path, range(5))
    with FeatureStore(path) as early:
        reader = subprocess.Popen(
            [sys.executable, "-c", READER, str(Path(__file__).parent), str(path)],
            stdout=subprocess.PIPE, text=True,
            cwd=project, env={**os.environ, "PYTHONPATH": str(project)},
        )  # fmt: skip
        with reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reading\n"
            before = early.read(range(5)).tobytes()
            for n in range(10, 60, 5):
                with opened(path) as writer:
                    for i in range(n - 5, n):
                        writer.add([clip(i)])
                        writer.flush()
                        with FeatureStore(path) as store:  # of the run before
                            assert len(store) == n - 5
                    finish(writer, rows(range(n)))
            (tmp_path / "stop").touch()
            seen, sizes = map(int, reader.stdout.read().split())
        assert reader.returncode == 0
        assert seen > 5
        assert sizes > 2
        assert early.read(range(5)).tobytes() == before


# --- ranges of a file --------------------------------------------------------------------------


def ranged(i: int, start: float, end: float) -> EncodedClip:
    one = clip(i)
    same = replace(one.row, path="dialogue.wav", sha256="d" * 64, start=start, end=end)
    return one._replace(row=same)


def test_item_5_ranges_of_one_file_are_clips_of_their_own(tmp_path: Path) -> None:
    path, clips = tmp_path / "s.h5", [ranged(0, 0.0, 1.5), ranged(1, 1.5, 3.0), ranged(2, 0.0, 0.0)]
    with opened(path) as writer:
        for one in clips:
            writer.add([one])
        finish(writer, [one[0] for one in clips])
    assert verify(path) == []
    with FeatureStore(path) as store:
        assert [(row.start, row.end) for row in store.rows] == [(0, 0), (0, 1.5), (1.5, 3)]
        assert store.clips["end"].tolist() == [0, 1.5, 3]
        for i, which in enumerate((2, 0, 1)):
            np.testing.assert_array_equal(store.read([i])[0], clips[which][1].astype(np.float16))
    with opened(path) as writer:  # a run of some clips leaves the others, a whole one doesn't
        assert finish(writer, [clips[0][0]], partial=True) == {"clips": 3, "kept": 2}
    with opened(path) as writer:
        assert finish(writer, [clips[0][0], clips[1][0]]) == {"clips": 2, "kept": 0}


# --- what other systems refuse -----------------------------------------------------------------


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files as Windows has them: no sync by a handle that reads, no change of an open file."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("open files are looked up in /proc")
    fsync = os.fsync

    def checked_fsync(handle: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        fsync(handle)

    def is_open(path: Any) -> bool:
        if not os.path.lexists(path):
            return False
        wanted = os.path.realpath(path)
        for handle in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(handle.readlink()) == wanted:
                    return True
        return False

    def refusing(name: str) -> Any:
        change = getattr(os, name)

        def _change(*paths: Any, **options: Any) -> Any:
            for path in paths:
                target = path if "dir_fd" not in options or options["dir_fd"] is None else None
                if target is not None and is_open(target):
                    text = "the file is being used by another process"
                    raise PermissionError(errno.EACCES, text, str(paths[0]), None, str(paths[-1]))
            return change(*paths, **options)

        return _change

    monkeypatch.setattr(os, "fsync", checked_fsync)
    for name in ("replace", "rename", "unlink", "remove"):
        monkeypatch.setattr(os, name, refusing(name))


def test_item_18_a_store_is_written_by_windows_rules(tmp_path: Path, windows: None) -> None:
    path = tmp_path / "s.h5"
    fill(path, range(3))
    with opened(path) as writer:  # killed: a part is left
        writer.add([clip(3)])
        writer.flush()
    assert fill(path, range(6)) == {"clips": 6, "kept": 0}  # the old file was read, and replaced
    assert verify(path) == []
    assert left_over(tmp_path) == ["s.h5"]
    with FeatureStore(path) as reader:
        assert len(reader) == 6
        fill(path, range(7))  # added to, which goes on beside a reader
        fill(path, range(2), prune=True)  # written anew later, when nobody has it open
        assert len(reader.read(range(6))) == 6
    assert len(FeatureStore(path)) == 2
    assert left_over(tmp_path) == ["s.h5"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_item_19_a_file_system_without_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "s.h5"
    with pytest.raises(StoreError, match=r"can't be locked .*--features-dir"), opened(path):
        pass
