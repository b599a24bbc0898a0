"""Extraction of real clips, killed again and again: nothing stored is lost, and it ends as ever."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ser_embed.bundled import DEMO_CORPUS

# Imports once and forks, as every process of its own would import for seconds.
NURSERY = """
import contextlib, json, os, shutil, signal, sys, time
from pathlib import Path
import numpy as np
from ser_embed.store import writer
from ser_embed.extract.corpus import extract
from ser_embed.extract.options import ExtractConfig
from ser_embed.store.checking import verify
from ser_embed.store.reader import FeatureStore

root, corpus, encoder, folder, wanted = Path(sys.argv[1]), *sys.argv[2:4], Path(sys.argv[4]), 60
rng = np.random.default_rng(11)
writer.BLOCK_BYTES = 1  # many commits in a short run

def config(place, batch_size=4, limit=48):
    return ExtractConfig(
        root, corpus, encoder=encoder, limit=limit, features_dir=place, backend="torch", workers=1,
        seconds=1.0, dtype="float32", batch_size=batch_size, quiet=True, json=True,
    )

def child(place):
    process = os.fork()
    if process == 0:
        os.setsid()
        extract(config(place))
        os._exit(0)
    return process

def content(file, everything=False):
    with FeatureStore(file, everything) as store:
        return store.rows, store.read(range(len(store)))

def everything(place):
    found = {}
    for file in [*place.glob("*.h5"), *place.glob("*.partial")]:
        assert verify(file) == [], file
        for row, features in zip(*content(file, everything=True)):
            if row.state == "stored":
                found[row.identity] = features.tobytes()
    return found

def whole(place, limit=48):
    extract(config(place, limit=limit))
    (file,) = place.glob("*.h5")
    return file

def exists_in_time(pattern, place, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(place.glob(pattern)):
        if os.waitpid(process, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
    return True

started = time.monotonic()
reference = whole(folder / "reference")
length = time.monotonic() - started
encoding = extract(config(folder / "again")).result["seconds"]
rows, features = content(reference)
half = len(content(whole(folder / "half", 24))[0])
assert half == 24
told = {"kills": 0, "in_a_commit": 0, "runs": 0, "finished": 0, "partial": 0, "added": 0,
        "worst": 0.0}
place, before = folder / "0", {}

def check(place):
    file = whole(place)
    again, ours = content(file)
    plain = [r.__class__(**{n: getattr(r, n) for n in r.__slots__ if n != "checksum"}, checksum=0)
             for r in again]
    assert plain == [r.__class__(**{n: getattr(r, n) for n in r.__slots__ if n != "checksum"},
                                 checksum=0) for r in rows]
    scale = np.linalg.norm(features, axis=(1, 2))
    worst = (np.linalg.norm(ours - features, axis=(1, 2)) / scale).max()
    told["worst"] = max(told["worst"], float(worst))
    assert verify(file) == []
    assert sorted(p.name for p in place.iterdir() if not p.name.startswith(".")) == [file.name]

while told["kills"] < wanted:
    process = child(place)
    told["runs"] += 1
    # Anywhere; while clips are encoded; while a commit is on its way (twice as often).
    pattern, span = [
        ("", 1.1 * length), (".*.holder", encoding), ("*.journal*", 0.004), ("*.journal*", 0.004)
    ][told["runs"] % 4]
    if not pattern or exists_in_time(pattern, place, process):
        time.sleep(float(rng.uniform(0, span)))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        killed = os.WIFSIGNALED(os.waitpid(process, 0)[1])
        told["kills"] += killed
        told["in_a_commit"] += killed and "journal" in pattern
    after = everything(place) if place.exists() else {}
    assert before.items() <= after.items(), "a stored clip is lost or changed"
    told["partial"] += len(before) < len(after) < len(rows)
    before = after
    file = next(place.glob("*.h5"), None) if place.exists() else None
    listed = 0 if file is None else len(content(file)[0])
    assert listed in (0, 24, 48), listed  # readers see runs that were finished
    if len(after) == len(rows) or told["kills"] % 12 == 11:
        check(place)
        told["finished"] += 1
        told["added"] += listed == 24
        shutil.rmtree(place)
        place, before = folder / str(told["runs"]), {}
        if told["finished"] % 2:  # the next one adds to a finished store
            shutil.copytree(folder / "half", place)
            before = everything(place)
check(place)
print(json.dumps(told))
"""


def test_sixty_kills_at_random_instants(
    tmp_path: Path, project: Path, run: Callable[..., subprocess.CompletedProcess[str]],
    tiny: str, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    pytest.importorskip("resource", reason="processes are forked and killed as on POSIX")
    if sys.platform != "linux":
        pytest.skip("processes are forked on Linux alone")
    try:
        root, corpus = request.getfixturevalue("shared") / "corpora" / "ravdess", "ravdess"
    except pytest.skip.Exception:  # the demo's clips are real files as well
        root, corpus = DEMO_CORPUS, "demo"
    done = run("-c", NURSERY, root, corpus, tiny, tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    print(told)
    assert told["kills"] == 60
    assert told["in_a_commit"] >= 10
    assert told["finished"] >= 2
    assert told["partial"] >= 10  # many of the kills came in the middle
    assert told["worst"] < 1e-5
