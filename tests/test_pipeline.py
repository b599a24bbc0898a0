"""The commands of daily use, one after the other, as a newcomer runs them in a fresh clone."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def clone(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that git tracks: no data, no features, no runs."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=project, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (project / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(project / name, folder / name)
    return folder


def _run(
    clone: Path, *args: str, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    clean = {k: v for k, v in os.environ.items() if k != "SER_EMBED_DATA"}
    return subprocess.run(
        [sys.executable, *args], cwd=clone, env={**clean, "PYTHONPATH": str(clone), **(env or {})},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip


@pytest.mark.timeout(900)
def test_the_three_commands_work_one_after_the_other(clone: Path) -> None:
    extracted = _run(clone, "-m", "ser_embed.extract")
    assert extracted.returncode == 0, extracted.stderr
    assert "synthetic demo corpus" in extracted.stderr
    assert len(list((clone / "artifacts/features").glob("demo-mini-*.h5"))) == 1

    trained = _run(clone, "-m", "ser_embed.train", "--early-stop")
    assert trained.returncode == 0, trained.stderr
    assert "UAR" in trained.stdout
    report = Path(trained.stdout.strip().splitlines()[-1].removeprefix("report: "))
    assert "synthetic" in (clone / report).read_text(encoding="utf-8")

    if sys.platform == "linux":  # elsewhere a microphone can't be hidden from PortAudio
        (clone / "asound.conf").write_text("pcm.nothing { type hw card 99 }\n")
        hidden = {"ALSA_CONFIG_PATH": str(clone / "asound.conf"), "JACK_NO_START_SERVER": "1"}
        spoken = _run(clone, "Main.py", env={**hidden, "JACK_DEFAULT_SERVER": "none"})
        assert spoken.returncode == 1
        assert "--file" in spoken.stderr
        assert "Traceback" not in spoken.stderr

    clip = "artifacts/demo/Actor_02/03-01-05-02-01-01-02.ogg"
    heard = _run(clone, "Main.py", "--file", clip, "--json")
    assert heard.returncode == 0, heard.stderr
    live = json.loads(heard.stdout.splitlines()[-1])["segments"][0]["probabilities"]
    predicted = _run(clone, "-m", "ser_embed.predict", clip, "--json")
    files = json.loads(predicted.stdout.splitlines()[-1])["files"]
    assert files[0]["label"] == max(live, key=live.get)
