"""Stage 1 on a real cluster of several nodes: the same features, and losses that cost nothing."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_extract import arrays, by_name, copy_clips, counts, spoil, tiny_checkpoint

from ser_embed.command import Outcome
from ser_embed.encoders import frozen
from ser_embed.errors import ClusterError, CorpusError, MissingExtra, StoreError
from ser_embed.extract import cluster as distributed
from ser_embed.extract.blocks import Digests
from ser_embed.extract.corpus import extract
from ser_embed.extract.options import ExtractConfig
from ser_embed.store import writer as writer_module
from ser_embed.store.checking import verify
from ser_embed.store.reader import FeatureStore

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: the extra is 'ray'"
)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")

Run = Callable[..., subprocess.CompletedProcess[str]]
Go = Callable[..., Outcome]

STORE_BYTES = 80 * 2**20  # of each node's object store

# What Python runs at its start on the nodes: a decoder that some files bring down, as a broken
# codec would. The process really dies.
BROKEN_CODEC = """
import os, signal, soundfile
whole = soundfile.SoundFile.__init__
def init(self, file, *args, **options):
    if "-poison" in str(getattr(file, "name", file)):
        os.kill(os.getpid(), signal.SIGKILL)
    whole(self, file, *args, **options)
soundfile.SoundFile.__init__ = init
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("encoders") / "tiny"))


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Iterator[Any]:
    """A cluster of three nodes of one processor each, which this process is connected to."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    hooks = tmp_path_factory.mktemp("hooks")
    (hooks / "sitecustomize.py").write_text(BROKEN_CODEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{hooks}{os.pathsep}{project}")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # 15 otherwise: beside other tests they starve
        node = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        running = Cluster(initialize_head=True, head_node_args=node)
        for _ in range(2):
            running.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        ray.init(address=running.address, log_to_driver=False, logging_level="CRITICAL")
        try:
            yield running
        finally:
            ray.shutdown()
            running.shutdown()


@pytest.fixture
def go(tmp_path: Path, tiny: str, machines: Any, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Return a function that extracts, on the cluster unless told, in float32."""

    def _go(root: Path | None, block_clips: int = 4, **options: Any) -> Outcome:
        values: dict[str, Any] = {
            "corpus": "ravdess", "encoder": tiny, "backend": "torch", "workers": 0, "quiet": True,
            "features_dir": tmp_path / "features", "engine": "ray",
            "seconds": 1.0, "dtype": "float32", **options,
        }  # fmt: skip
        monkeypatch.setattr(distributed, "BLOCK_CLIPS", block_clips)
        return extract(ExtractConfig(root=root, **values))

    return _go


def store_of(outcome: Outcome) -> Path:
    return Path(outcome.result["store"])


def n_stored(folder: Path) -> int:
    """How many clips are stored in a folder's unfinished store."""
    for file in folder.glob("*.partial"):
        with FeatureStore(file) as store:
            return len(store)
    return 0


def assert_equal_within_rounding(one: Path, other: Path) -> None:
    given, wanted = arrays(one), arrays(other)
    assert set(given) == set(wanted)
    for name, features in wanted.items():
        assert np.linalg.norm(given[name] - features) <= 1e-5 * np.linalg.norm(features)


def rows_but_checksums(path: Path) -> list[tuple[Any, ...]]:
    with FeatureStore(path) as store:
        return [(r.path, r.speaker, r.emotion, r.seconds, r.sha256, r.state, r.reason)
                for r in store.rows]  # fmt: skip


# --- the same as locally -----------------------------------------------------------------------


def test_equal_to_the_local_engine(
    tmp_path: Path, go: Go, capsys: pytest.CaptureFixture[str]
) -> None:
    """With bad clips, and a clip that is there twice."""
    root = tmp_path / "corpus"
    clips = copy_clips(root, range(10))
    shutil.copytree(root / clips[0].parent.name, root / "again" / clips[0].parent.name)
    said = spoil(root / "Actor_07")
    local = go(root, engine="local", features_dir=tmp_path / "local")
    told = capsys.readouterr().err
    outcome = go(root)
    assert capsys.readouterr().err == told
    assert counts(outcome) == counts(local) == (10 + len(said), 10, 0, len(said))
    assert outcome.status == local.status == 3
    assert set(outcome.result) == set(local.result)
    assert rows_but_checksums(store_of(outcome)) == rows_but_checksums(store_of(local))
    assert store_of(outcome).name == store_of(local).name
    assert_equal_within_rounding(store_of(outcome), store_of(local))
    assert verify(store_of(outcome)) == []
    (file,) = (p for p in (tmp_path / "features").iterdir() if p.name[0] != ".")
    assert file == store_of(outcome)
    before = file.stat()
    assert counts(go(root)) == (10 + len(said), 0, 10, len(said))
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_one_engine_goes_on_where_the_other_ended(tmp_path: Path, go: Go) -> None:
    copy_clips(tmp_path / "corpus", range(6))
    first = go(tmp_path / "corpus", engine="local", limit=2)
    assert counts(go(tmp_path / "corpus", limit=4)) == (4, 2, 2, 0)
    outcome = go(tmp_path / "corpus", engine="local")
    assert counts(outcome) == (6, 2, 4, 0)
    assert store_of(first) == store_of(outcome)
    assert verify(store_of(outcome)) == []


def test_item_20_the_driver_takes_no_gpu_and_parts_are_bounded_by_bytes(
    tmp_path: Path, go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a backend the network stays where it was loaded: in the host's memory."""
    root = tmp_path / "corpus"
    copy_clips(root, range(6))
    local = go(root, engine="local", features_dir=tmp_path / "local")

    def refuse(*arguments: Any) -> None:
        raise AssertionError("the driver made a backend")

    monkeypatch.setattr(frozen, "make_backend", refuse)  # of this process: workers have their own
    monkeypatch.setattr(distributed, "WAVEFORM_BYTES", 2 * 16_000 * 4)  # two clips a part
    parts = []
    take = distributed.clips_of
    monkeypatch.setattr(
        distributed, "clips_of", lambda *given: parts.append(take(*given)) or parts[-1]
    )
    outcome = go(root)
    assert len(parts) > 2
    assert_equal_within_rounding(store_of(outcome), store_of(local))
    monkeypatch.undo()


def test_the_same_bits_in_the_same_batches(tmp_path: Path, go: Go) -> None:
    """Of whole clips, which differ in length; and a store behind a URL."""
    copy_clips(tmp_path / "corpus", range(6))
    options = {"block_clips": 100, "seconds": 0.0, "norm": "frame"}
    local = go(tmp_path / "corpus", engine="local", **options)
    url = f"file://{tmp_path}/bucket/features"
    outcome = go(tmp_path / "corpus", url=url, **options)
    path = tmp_path / "bucket" / "features" / store_of(local).name
    assert outcome.result["store"] == f"{url}/{path.name}"
    assert by_name(path) == by_name(store_of(local))
    assert verify(path) == []
    copy_clips(tmp_path / "corpus", range(8))
    assert counts(go(tmp_path / "corpus", url=url, **options)) == (8, 2, 6, 0)
    assert verify(path) == []
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert not [p for p in (tmp_path / "features").glob(".remote-*") if p.is_dir()]


def test_a_url_that_leads_nowhere_and_what_was_stored_for_it(tmp_path: Path, go: Go) -> None:
    copy_clips(tmp_path / "corpus", range(3))
    (tmp_path / "taken").write_text("a file where the folder should be")
    url = f"file://{tmp_path}/taken/features"
    with pytest.raises(StoreError, match=r"taken/features: .*right to write there"):
        go(tmp_path / "corpus", url=url)
    (tmp_path / "taken").unlink()
    (tmp_path / "taken" / "features").mkdir(parents=True)
    assert counts(go(tmp_path / "corpus", url=url)) == (3, 0, 3, 0)  # of the run that failed


# --- losses ------------------------------------------------------------------------------------


def test_a_file_that_crashes_its_decoder(tmp_path: Path, go: Go) -> None:
    clips = copy_clips(tmp_path / "corpus", range(6))
    table = tmp_path / "mine.csv"
    poison = clips[2].with_name("x-poison.ogg")
    clips[2].rename(poison)
    clips[2] = poison
    table.write_text("path,emotion\n" + "".join(f"{clip},happy\n" for clip in clips))
    outcome = go(None, corpus="", csv=table)
    assert outcome.status == 3
    assert counts(outcome) == (6, 5, 0, 1)
    with FeatureStore(store_of(outcome)) as store:
        (row,) = [row for row in store.rows if row.state == "failed"]
    assert row.path.endswith("x-poison.ogg")
    assert "crashes its decoder" in row.reason
    assert verify(store_of(outcome)) == []


class Background(threading.Thread):
    """An extraction while something else happens."""

    def __init__(self, work: Callable[[], Outcome]) -> None:
        super().__init__()
        self.work, self.outcome, self.error = work, None, None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self.work()
        except Exception as error:
            self.error = error

    def wait_for_clips(self, folder: Path, n: int) -> None:
        deadline = time.monotonic() + 90
        while n_stored(folder) < n:
            assert self.is_alive(), self.error
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def finished(self) -> Outcome:
        self.join(timeout=150)
        assert not self.is_alive()
        assert self.error is None, self.error
        assert self.outcome is not None
        return self.outcome


def encoders() -> list[int]:
    """Process numbers of this cluster's actors that encode."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if b"ray::MapWorker(MapBatches(BlockEncoder))" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return [pid for pid in found if os.getpid() in ancestors(pid)]


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def assert_whole(outcome: Outcome, n: int) -> None:
    """Nothing lost, nothing doubled."""
    assert counts(outcome) == (n, n, 0, 0)
    with FeatureStore(store_of(outcome)) as store:
        assert len({row.identity for row in store.rows}) == len(store.rows) == n
    assert verify(store_of(outcome)) == []


def test_a_worker_and_then_a_node_are_killed(
    tmp_path: Path, go: Go, machines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker as the system kills for memory, the node without a word."""
    monkeypatch.setattr(writer_module, "BLOCK_SECONDS", 0.0)
    copy_clips(tmp_path / "corpus", range(40))
    features = tmp_path / "features"
    work = Background(lambda: go(tmp_path / "corpus", block_clips=1))
    work.wait_for_clips(features, 3)
    os.kill(encoders()[0], signal.SIGKILL)
    work.wait_for_clips(features, 8)
    machines.remove_node(machines.worker_nodes.copy().pop(), allow_graceful=False)
    assert work.is_alive()
    outcome = work.finished()
    assert_whole(outcome, 40)
    local = go(tmp_path / "corpus", engine="local", features_dir=tmp_path / "local")
    assert_equal_within_rounding(store_of(outcome), store_of(local))


def test_workers_that_never_live_end_in_a_sentence(
    tmp_path: Path, go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "TRIES", 1)
    monkeypatch.setattr(distributed, "_encoders", lambda: 1)
    copy_clips(tmp_path / "corpus", range(2))
    work = Background(lambda: go(tmp_path / "corpus", block_clips=1))
    deadline = time.monotonic() + 120
    while work.is_alive() and time.monotonic() < deadline:
        for pid in encoders():
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    work.join(timeout=30)
    assert isinstance(work.error, ClusterError)
    assert "2 of 2 blocks" in str(work.error)
    assert "--batch-size" in str(work.error)
    assert counts(go(tmp_path / "corpus")) == (2, 2, 0, 0)  # and the same command goes on


# --- what can be said without a cluster ----------------------------------------------------------


def test_a_clip_is_known_by_its_digest() -> None:
    rng = np.random.default_rng(0)
    clips = [(f"caf\udce9-{i}.wav", rng.bytes(32).hex()) for i in range(2000)]
    known = Digests(Digests.of(iter(clips[::2]), 1000))
    assert len(known) == 1000
    assert [clip in known for clip in clips] == [True, False] * 1000
    assert ("other.wav", clips[0][1]) not in known
    assert clips[0] not in Digests(Digests.of(iter([]), 0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "s3://bucket/x"}, "--engine ray"),
    ],
    ids=str,
)
def test_options_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(CorpusError, match=said):
        extract(ExtractConfig(**options))


def test_without_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy_clips(tmp_path / "corpus", range(1))
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtra, match=r"ser_embed\[ray\]"):
        extract(ExtractConfig(tmp_path / "corpus", corpus="ravdess", engine="ray"))


@needs_ray
def test_the_command(tmp_path: Path, tiny: str, run: Run) -> None:
    """As a user runs it on one machine, and where no cluster answers."""
    copy_clips(tmp_path / "corpus", range(3))
    command = (
        "-m", "ser_embed.extract", tmp_path / "corpus", "--corpus", "ravdess", "--engine", "ray",
        "--encoder", tiny, "--backend", "torch", "--features-dir", tmp_path / "f", "--json",
        "--quiet",
    )  # fmt: skip
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert (told["clips"], told["stored"], told["failed"]) == (3, 3, 0)
    assert verify(Path(told["store"])) == []
    wrong = run(*command, "--address", "127.0.0.1:9")
    assert wrong.returncode == 1
    assert "Ray at 127.0.0.1:9" in wrong.stderr
    assert "--address" in wrong.stderr
    assert "Traceback" not in wrong.stderr
