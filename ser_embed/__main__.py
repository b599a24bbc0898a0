"""`python -m ser_embed`: which commands there are, and a way to run each.

`python -m ser_embed COMMAND ...` is `python -m ser_embed.COMMAND ...`. Once the package is
installed the same goes by the name `ser_embed`, which shells can complete after one of

    ser_embed --completion bash > ~/.local/share/bash-completion/completions/ser_embed
    ser_embed --completion zsh > ~/.zfunc/_ser_embed      # with ~/.zfunc in fpath
    ser_embed --completion fish > ~/.config/fish/completions/ser_embed.fish
"""

import ast
import importlib
import sys
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import tyro

from ser_embed import __version__
from ser_embed.command import TYRO_RULES, Options

__all__ = ["SHELLS", "commands", "main"]

SHELLS = ("bash", "zsh", "fish")

_PROG = "ser_embed"
# As one meets them; a command that isn't named here comes after these.
_ORDER = ("download", "corpora", "extract", "store", "train", "evaluate", "predict", "live")
_USAGE = """usage: python -m ser_embed COMMAND [OPTIONS]
       python -m ser_embed COMMAND --help
       python -m ser_embed --version
       python -m ser_embed --completion bash|zsh|fish
"""


def commands() -> dict[str, str]:
    """Return each command's name and the first sentence of its description.

    Both come from the modules' source: importing them all would take seconds.
    """
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if not any(isinstance(n, ast.FunctionDef) and n.name == "main" for n in tree.body):
            continue
        for node in tree.body:
            bases = [ast.unparse(b) for b in node.bases] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.ClassDef) and Options.__name__ in bases:
                found[file.stem] = (ast.get_docstring(node) or "").split("\n\n")[0]
    known = [name for name in _ORDER if name in found]
    return {name: found[name] for name in [*known, *sorted(set(found) - set(known))]}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command by its name, or list the commands."""
    args = list(sys.argv[1:] if argv is None else argv)
    known = commands()
    if not args or args[0] in ("-h", "--help"):
        print(_USAGE)
        width = max(map(len, known))
        for name, told in known.items():
            print(f"  {name:{width}}  {' '.join(told.split())}")
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
    return int(importlib.import_module(f"ser_embed.{args[0]}").main(args[1:]))


def _print_completion(args: Sequence[str], names: Sequence[str]) -> int:
    """Print the script that makes a shell complete commands, options and their values."""
    if len(args) != 1 or args[0] not in SHELLS:
        print(f"{_PROG}: error: --completion takes one of {', '.join(SHELLS)}", file=sys.stderr)
        return 2
    tyro.extras.subcommand_cli_from_dict(
        {name: _options(name) for name in names},
        prog=_PROG,
        args=["--tyro-print-completion", args[0]],
        config=TYRO_RULES,
    )
    return 0


def _options(name: str) -> Any:
    module = importlib.import_module(f"ser_embed.{name}")
    return next(
        thing for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, Options) and is_dataclass(thing)
        and thing.__module__ == module.__name__
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
