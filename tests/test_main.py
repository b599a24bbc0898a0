"""`python -m ser_embed`: the list of commands, running one by name, and completion in shells."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from ser_embed import __main__ as front
from ser_embed import __version__

Run = Callable[..., CompletedProcess[str]]


def test_every_command_is_listed_with_what_it_does(run: Run) -> None:
    done = run("-m", "ser_embed")
    assert done.returncode == 0
    assert done.stdout == run("-m", "ser_embed", "--help").stdout
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  ")]
    listed = {name: told for name, told in lines if name != "python"}
    assert set(listed) == set(front.COMMANDS)
    for name, told in listed.items():
        assert callable(front._module(name).main)
        config = front._options(name)
        assert told == " ".join(str(config.__doc__).split("\n\n")[0].split())
        assert told.endswith(".")


def test_the_list_holds_every_module_that_is_a_command(project: Path) -> None:
    """A command is a folder's `__main__`, or a module at the top whose last lines run its main."""
    package = project / "ser_embed"
    runs = {path.parent.name for path in package.glob("*/__main__.py")} | {
        path.stem for path in package.glob("*.py")
        if "raise SystemExit(main())" in path.read_text(encoding="utf-8")
    }  # fmt: skip
    assert set(front.COMMANDS) == runs - {"__main__"}


def test_listing_loads_nothing_heavy() -> None:
    code = (
        "import sys; from ser_embed.__main__ import main; main([]); "
        "sys.exit('torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode
        == 0
    )


def test_a_command_runs_by_its_name(run: Run, project: Path) -> None:
    demo = project / "artifacts" / "demo"
    by_name = run("-m", "ser_embed", "corpora", demo, "--json")
    itself = run("-m", "ser_embed.corpora", demo, "--json")
    assert by_name.returncode == itself.returncode == 0
    assert by_name.stdout == itself.stdout != ""
    assert "usage: python -m ser_embed.store" in run("-m", "ser_embed", "store", "--help").stdout


def test_the_version_is_printed(run: Run) -> None:
    assert run("-m", "ser_embed", "--version").stdout == f"ser_embed {__version__}\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [(["atlantis"], "no command 'atlantis'; there are download, corpora, encoders"),
     (["--completion"], "takes one of bash, zsh, fish"),
     (["--completion", "csh"], "takes one of bash, zsh, fish")],
)  # fmt: skip
def test_wrong_usage_is_status_2(
    args: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert front.main(args) == 2
    assert words in capsys.readouterr().err


# --- completion ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script of each shell."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in front.SHELLS:
        with (folder / shell).open("w", encoding="utf-8") as file, redirect_stdout(file):
            assert front.main(["--completion", shell]) == 0
    return {shell: folder / shell for shell in front.SHELLS}


@pytest.fixture(scope="module")
def script(scripts: dict[str, Path]) -> Path:
    """The script for bash."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    return scripts["bash"]


def complete(script: Path, line: str) -> set[str]:
    """Return what a real bash offers at the end of a line."""
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    code = f"""
        source {script}
        COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
        registered=$(complete -p ser_embed); registered=${{registered#*-F }}
        ${{registered%% *}}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_bash_completes_commands_options_and_values(script: Path) -> None:
    assert complete(script, "ser_embed ") >= set(front.COMMANDS)
    assert complete(script, "ser_embed pre") == {"predict", "pretrain"}
    assert complete(script, "ser_embed extract --enc") == {"--encoder"}
    assert complete(script, "ser_embed extract --pool ") == {"none", "mean", "stats"}
    assert "--verify" not in complete(script, "ser_embed extract --")


@pytest.mark.parametrize(("line", "some"), [
    ("extract --corpus ", {"ravdess", "tess", "demo"}), ("extract --encoder ", {"mini"}),
    ("train --split ", {"speaker", "loso"}), ("train --labels ", {"sentiment3", "emotion8"}),
    ("train --head ", {"conv", "stats"}),
])  # fmt: skip
def test_bash_completes_values_that_are_not_the_only_ones(
    script: Path, line: str, some: set[str]
) -> None:
    assert complete(script, f"ser_embed {line}") >= some


def test_bash_completes_runs_by_what_is_there(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts/runs/emotion8-ravdess").mkdir(parents=True)
    found = complete(script, "ser_embed predict x.wav --run ")
    assert found == {"artifacts/runs/emotion8-ravdess"}


@pytest.mark.parametrize("shell", front.SHELLS)
def test_every_shell_has_a_script_that_it_can_read(shell: str, scripts: dict[str, Path]) -> None:
    text = scripts[shell].read_text(encoding="utf-8")
    for words in ("ser_embed", *front.COMMANDS, "--early-stop"):
        assert words in text
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(scripts[shell])], check=True)


def test_the_installed_name_runs_the_same(project: Path) -> None:
    text = (project / "setup.cfg").read_text(encoding="utf-8")
    assert "ser_embed = ser_embed.__main__:main" in text
