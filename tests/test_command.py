"""Exit statuses, `--json` and messages, from a small command run as a real process."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Annotated, Any

import pytest
import tyro

from ser_embed import demo
from ser_embed.command import Options, command_line

Run = Callable[..., CompletedProcess[str]]

PROJECT = Path(__file__).resolve().parent.parent

PROGRAM = '''
import errno, logging, os, signal, sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ser_embed.command import SOME_CLIPS_FAILED, Options, Outcome, run_command
from ser_embed.errors import CorpusError, MissingExtra

@dataclass(frozen=True)
class Config(Options):
    """Do one thing."""

    what: Annotated[str, tyro.conf.Positional] = "done"
    """What to do."""
    seed: int = 0
    """Seed of the draws."""

def work(config):
    logging.getLogger("ser_embed").info("a remark")
    if not config.json:
        print("a table")
    if config.what == "error":
        raise CorpusError("clips: no audio file in it")
    if config.what == "extra":
        raise MissingExtra("onnx", "onnx")
    if config.what == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "features/demo.h5")
    if config.what == "dev-full":
        with open("/dev/full", "w") as file:
            file.write("x")
    if config.what == "missing":
        Path("nowhere/at/all").read_text()
    if config.what == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    if config.what == "pipe":
        for _ in range(100_000):
            print("a line that nobody reads")
    if config.what == "bug":
        raise ZeroDivisionError("a mistake of ours")
    name = os.fsdecode(b"Enrag\\xe9.wav") if config.what == "bytes" else "wütend.wav"
    if config.what == "bytes" and not config.json:
        print(name)
    status = SOME_CLIPS_FAILED if config.what == "some" else 0
    return Outcome({"what": config.what, "seed": config.seed, "file": name}, status)

raise SystemExit(run_command(work, Config, "prog"))
'''


@pytest.fixture
def do(
    tmp_path: Path, run: Callable[..., CompletedProcess[str]]
) -> Callable[..., CompletedProcess[str]]:
    program = tmp_path / "program.py"  # the help texts are read from a file's source
    program.write_text(PROGRAM, encoding="utf-8")

    def _do(*args: str, env: dict[str, str] | None = None) -> CompletedProcess[str]:
        return run(program, *args, env=env)

    return _do


def last_object(done: CompletedProcess[str]) -> dict[str, Any]:
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("what", "status"), [("done", 0), ("some", 3)])
def test_work_that_ends_well_gives_its_status_and_json(
    do: Callable[..., CompletedProcess[str]], what: str, status: int
) -> None:
    done = do(what, "--seed", "3", "--json")
    assert done.returncode == status
    assert last_object(done) == {"what": what, "seed": 3, "file": "wütend.wav"}


def test_without_json_only_the_commands_own_words_are_printed(
    do: Callable[..., CompletedProcess[str]],
) -> None:
    done = do()
    assert (done.returncode, done.stdout, done.stderr) == (0, "a table\n", "a remark\n")


def test_quiet_leaves_remarks_out_and_keeps_the_result(
    do: Callable[..., CompletedProcess[str]],
) -> None:
    done = do("--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a table\n", "")


ERRORS = [
    ("error", "clips: no audio file in it"),
    ("extra", "onnx is not installed: pip install 'ser_embed[onnx]'"),
    ("full", "features/demo.h5: No space left on device; free some space or choose another folder"),
    ("dev-full", "No space left on device; free some space or choose another folder"),
    ("missing", "nowhere/at/all: No such file or directory"),
]


@pytest.mark.parametrize(("what", "message"), ERRORS)
def test_an_error_is_one_sentence_and_status_1(
    do: Callable[..., CompletedProcess[str]], what: str, message: str
) -> None:
    if what == "dev-full" and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = do(what, "--quiet", "--json")
    assert done.returncode == 1
    assert done.stderr.startswith(f"prog: error: {message}")
    assert done.stderr.count("\n") == 1
    # Whoever reads the last line finds the same sentence there.
    assert list(last_object(done)) == ["error"]
    assert f"prog: error: {last_object(done)['error']}\n" == done.stderr


def test_a_full_disk_says_that_nothing_is_lost(do: Callable[..., CompletedProcess[str]]) -> None:
    assert "it goes on from what is stored" in do("full").stderr


def test_an_error_without_json_leaves_standard_output_alone(
    do: Callable[..., CompletedProcess[str]],
) -> None:
    assert do("error").stdout == "a table\n"


@pytest.mark.parametrize(
    ("args", "named"),
    [(["--sed", "3"], "--sed"), (["--seed", "three"], "three"), (["done", "twice"], "twice")],
)
def test_wrong_usage_is_status_2(
    do: Callable[..., CompletedProcess[str]], args: list[str], named: str
) -> None:
    done = do(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to a process of its own")
def test_an_interrupt_is_status_130_without_a_traceback(
    do: Callable[..., CompletedProcess[str]],
) -> None:
    done = do("interrupt", "--quiet")
    assert done.returncode == 128 + signal.SIGINT == 130
    assert "prog: interrupted; what was reported as stored is kept" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistake_of_ours_keeps_its_traceback(do: Callable[..., CompletedProcess[str]]) -> None:
    done = do("bug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "a mistake of ours" in done.stderr


def test_help_names_every_option_with_its_text(do: Callable[..., CompletedProcess[str]]) -> None:
    done = do("--help")
    assert done.returncode == 0
    for words in ("usage: prog", "Do one thing.", "Seed of the draws.", "--json", "--quiet"):
        assert words in done.stdout


def test_help_shows_a_default_only_where_it_tells_something(
    do: Callable[..., CompletedProcess[str]],
) -> None:
    text = do("--help").stdout
    assert "[WHAT]" in text.splitlines()[0]
    assert "(default: done)" in text
    assert "(default: 0)" in text
    assert text.count("(default:") == 2  # a flag's own default is what it isn't


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
@pytest.mark.parametrize("args", ["--help", "pipe"])
def test_a_reader_that_has_gone_is_no_error_in_words(
    do: Callable[..., CompletedProcess[str]], tmp_path: Path, args: str
) -> None:
    do("done")  # writes the program
    done = subprocess.run(
        f"{sys.executable} {tmp_path / 'program.py'} {args} | true",
        shell=True, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr


@pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="file names are text on this platform"
)
def test_a_name_that_is_not_text_is_printed_escaped(
    do: Callable[..., CompletedProcess[str]],
) -> None:
    assert do("bytes").stdout.splitlines()[-1] == "Enrag\\udce9.wav"
    assert last_object(do("bytes", "--json"))["file"] == "Enrag\udce9.wav"


def test_json_holds_on_a_terminal_without_the_letters(
    do: Callable[..., CompletedProcess[str]],
) -> None:
    done = do("--json", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert last_object(done)["file"] == "wütend.wav"


GROUPED = '''
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ser_embed.command import Options, Outcome, run_command

@dataclass(frozen=True)
class Config(Options):
    """Do one thing."""

    groups: ClassVar = {"epochs": "training", "folder": "output\\nWhere results go."}

    store: Annotated[Path, tyro.conf.Positional]
    """What to read."""
    epochs: int = 60
    """At most
    so many."""
    lr: float | None = None
    """Learning rate."""
    folder: Path = Path("runs")
    """Where runs are written."""

raise SystemExit(run_command(lambda c: Outcome(vars(c) | {"store": 1, "folder": str(c.folder)}),
                             Config, "prog"))
'''


def test_help_shows_options_in_their_groups(
    tmp_path: Path, run: Callable[..., CompletedProcess[str]]
) -> None:
    program = tmp_path / "program.py"
    program.write_text(GROUPED, encoding="utf-8")
    text = run(program, "--help").stdout.partition("Do one thing.")[2]
    order = ["STORE", "--json", "training options", "--epochs", "At most so many.", "--lr",
             "output options", "Where results go.", "--folder"]  # fmt: skip
    places = [text.index(word) for word in order]
    assert places == sorted(places)
    done = run(program, "s.h5", "--folder", "x", "--lr", "0.5", "--json")
    told = json.loads(done.stdout)
    assert told == {"json": True, "quiet": False, "store": 1, "epochs": 60, "lr": 0.5,
                    "folder": "x"}  # fmt: skip


# A shipped command, where a library's own error has to become a sentence.


def test_a_bad_value_is_an_error_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.main([str(tmp_path), "--seed", "-1"]) == 1
    assert "error: seed -1 is negative" in capsys.readouterr().err


def test_a_file_that_can_not_be_written_is_an_error_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Actor_01" / "03-01-01-01-01-01-01.ogg").mkdir(parents=True)
    assert demo.main([str(tmp_path)]) == 1
    assert "03-01-01-01-01-01-01.ogg" in capsys.readouterr().err


@dataclass(frozen=True)
class Everything(Options):
    """One of every kind."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    rate: float = 0.5
    trim: bool = True
    deep: bool = False
    names: tuple[str, ...] = ()
    folder: Path | None = None


@pytest.mark.parametrize("options", [
    Everything(),
    Everything((Path("a b.h5"), Path("c"))),
    Everything(rate=1e-5, trim=False, deep=True, names=("x", "y z"), folder=Path("über")),
])  # fmt: skip
def test_a_command_line_gives_back_its_options(options: Everything) -> None:
    words = shlex.split(command_line("python -m x", replace(options, json=True)))
    assert words[:3] == ["python", "-m", "x"]
    flags = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    assert tyro.cli(Everything, args=words[3:], config=flags) == options


# --- disks -------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a few small files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, check=False).returncode:
        pytest.skip("mounting a small file system needs Linux and root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("command", ["train", "extract", "export"])
def test_item_19_a_full_disk_is_a_sentence_in_every_command(
    command: str, full_disk: Path, demo_runs: dict[str, Path], run: Run
) -> None:
    """Each library has an error of its own for it: safetensors, HDF5, protobuf."""
    arguments = {
        "train": ("--features-dir", demo_runs["features"], "--runs-dir", full_disk, "--epochs", 1),
        "extract": ("--corpus", "demo", "--limit", 24, "--features-dir", full_disk),
        "export": (demo_runs["speaker"], "--out", full_disk / "x.onnx"),
    }[command]
    done = run("-m", f"ser_embed.{command}", *arguments, "--quiet", timeout=200)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(full_disk) in done.stderr
    assert "free some space" in done.stderr


def test_item_19_a_home_that_can_not_be_written_to(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "file" / "home")
    home = {"HOME": folder, "HF_HOME": f"{folder}/.cache", "SER_EMBED_CACHE": ""}
    command = ("-m", "ser_embed.extract", "--corpus", "demo", "--limit", 8, "--quiet",
               "--features-dir", tmp_path / "f")  # fmt: skip
    assert run(*command, env=home).returncode == 0
    refused = run(*command, "--encoder", "wav2vec2-base", env=home)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "HF_HOME" in refused.stderr
