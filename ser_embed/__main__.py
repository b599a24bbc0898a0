"""`python -m ser_embed`: which commands there are, and a way to run each.

`python -m ser_embed COMMAND ...` is `python -m ser_embed.COMMAND ...`. Once the package is
installed the same goes by the name `ser_embed`, which shells can complete after one of

    ser_embed --completion bash > ~/.local/share/bash-completion/completions/ser_embed
    ser_embed --completion zsh > ~/.zfunc/_ser_embed      # with ~/.zfunc in fpath
    ser_embed --completion fish > ~/.config/fish/completions/ser_embed.fish
"""

import contextlib
import importlib
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import tyro

from ser_embed import __version__
from ser_embed.command import RUNS_DIR, TYRO_RULES, Options, parser_of

__all__ = ["COMMANDS", "SHELLS", "main"]

SHELLS = ("bash", "zsh", "fish")

_PROG = "ser_embed"
_USAGE = """usage: python -m ser_embed COMMAND [OPTIONS]
       python -m ser_embed COMMAND --help
       python -m ser_embed --version
       python -m ser_embed --completion bash|zsh|fish
"""


COMMANDS = {
    "download": "Fetch corpora from their publishers, check, unpack and count them.",
    "corpora": "Print what a corpus holds: clips, hours, speakers, emotions, duplicates, faults.",
    "encoders": "List the encoders that have a name: size, layers, licence, where from, if here.",
    "extract": "Encode a corpus with a frozen encoder and cache the features.",
    "store": "Say what a feature store holds.",
    "train": "Train a head on cached features; without files, on every store in --features-dir.",
    "evaluate": "Report on a run: on its own test part, or on the stores named.",
    "predict": "Classify audio files; folders are searched.",
    "live": "Classify speech live from the microphone until Ctrl-C; --file needs no microphone.",
    "compare": "Train models on one corpus and the same split, and set them side by side.",
    "crosscorpus": "Train on each corpus and test on every other one.",
    "demo": "Write the synthetic demo corpus: 360 short clips named as RAVDESS's are.",
    "export": "Write a trained run as one ONNX file, or as a folder that transformers loads.",
    "finetune": "Fine-tune an encoder and a classifier end to end, by a recipe or by options.",
    "pretrain": "Pre-train an encoder on folders of speech; no transcript or label is needed.",
    "robustness": "Score a run's test clips again under noise, a telephone band, codecs and rooms.",
    "web": "Serve a page that classifies files and the browser's microphone, until Ctrl-C.",
}
"""The commands and what each does, in the order in which they are needed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command by its name, or list the commands."""
    args = list(sys.argv[1:] if argv is None else argv)
    known = COMMANDS
    if not args or args[0] in ("-h", "--help"):
        print(_USAGE)
        width = max(map(len, known))
        for name, about in known.items():
            print(f"  {name:{width}}  {' '.join(about.split())}")
        return 0
    if args[0] == "--version":
        print(f"{_PROG} {__version__}")
        return 0
    if args[0] == "--completion":
        return _print_completion(args[1:], list(known))
    if args[0] not in known:
        names = ", ".join(known)
        print(f"{_PROG}: error: no command {args[0]!r}; there are {names}", file=sys.stderr)
        return 2
    return int(_module(args[0]).main(args[1:]))


def _print_completion(args: Sequence[str], names: Sequence[str]) -> int:
    """Print the script that makes a shell complete commands, options and their values."""
    if len(args) != 1 or args[0] not in SHELLS:
        print(f"{_PROG}: error: --completion takes one of {', '.join(SHELLS)}", file=sys.stderr)
        return 2
    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(
            {name: parser_of(_options(name)) for name in names},
            prog=_PROG,
            args=["--tyro-print-completion", args[0]],
            config=TYRO_RULES,
        )
    print(_with_values(script.getvalue()), end="")
    return 0


def _with_values(script: str) -> str:
    """Add to a completion script the values of options that take others too.

    tyro writes what it completes as one line, `COMPLETION_SPEC = {...}`, and offers file names for
    an option whose values it can't list.
    """
    from ser_embed.corpora import CORPORA, SCHEMES
    from ser_embed.encoders import ENCODERS
    from ser_embed.heads import HEADS
    from ser_embed.splits import SPLITS

    values = {
        "--corpus": [*CORPORA, "demo"], "--encoder": [*ENCODERS], "--split": [*SPLITS],
        "--labels": [*SCHEMES], "--head": [*HEADS], "--run": [],
    }  # fmt: skip
    return re.sub(
        r"^COMPLETION_SPEC = .*$",
        lambda line: f"{line[0]}\n{_ADD_VALUES.format(values=values, runs=str(RUNS_DIR))}",
        script, count=1, flags=re.M,
    )  # fmt: skip


_ADD_VALUES = """
import glob
VALUES = {values!r}
VALUES["--run"] = sorted(glob.glob({runs!r} + "/*"))
for command in COMPLETION_SPEC["subcommands"].values():
    for option in command["options"]:
        for flag in set(option["flags"]) & set(VALUES):
            option.update(type="choice", choices=VALUES[flag])
"""


def _module(name: str) -> ModuleType:
    """Import a command: a folder's `__main__`, or a module of that name."""
    folder = (Path(__file__).parent / name).is_dir()
    return importlib.import_module(f"ser_embed.{name}.__main__" if folder else f"ser_embed.{name}")


def _options(name: str) -> type[Options]:
    """Return the options of a command: the one class of them that its module holds."""
    return next(
        thing for thing in vars(_module(name)).values()
        if isinstance(thing, type) and issubclass(thing, Options) and thing is not Options
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
