"""What every command shares: options from one dataclass, exit statuses, `--json`, `--quiet`.

A command is a frozen dataclass that derives from `Options` and a function from it to an
`Outcome`. Exit status: 0 done, 1 error, 2 wrong usage, 3 done but some clips failed,
130 interrupted.
"""

import ast
import errno
import inspect
import io
import itertools
import json
import logging
import math
import os
import re
import shlex
import shutil
import sys
import textwrap
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast

import tyro

from ser_embed.errors import SerEmbedError

__all__ = [
    "DONE", "FAILED", "FEATURES_DIR", "INTERRUPTED", "RUNS_DIR", "SOME_CLIPS_FAILED", "Options",
    "Outcome", "command_line", "data_folder", "parse", "parser_of", "run_command",
]  # fmt: skip

DONE, FAILED, SOME_CLIPS_FAILED, INTERRUPTED = 0, 1, 3, 130

FEATURES_DIR = Path("artifacts/features")
RUNS_DIR = Path("artifacts/runs")


TYRO_RULES = (
    tyro.conf.FlagCreatePairsOff,  # --verify, not --verify and --no-verify
    tyro.conf.OmitArgPrefixes,
    tyro.conf.DisallowNone,  # leaving an option out is how to give none
)


AnyOptions = TypeVar("AnyOptions", bound="Options")


def data_folder() -> Path:
    """Return the folder that holds the corpora: $SER_EMBED_DATA, else ./data."""
    return Path(os.environ.get("SER_EMBED_DATA", "data"))


@dataclass(frozen=True)
class Options:
    """Options that every command has."""

    groups: ClassVar[Mapping[str, str]] = {}
    """Title of the help's group that begins with an option: `{"epochs": "training"}`.

    What follows a line break in a title is shown as the group's description.
    """

    json: bool = field(default=False, kw_only=True)
    """Print one JSON object as the last line of output."""
    quiet: bool = field(default=False, kw_only=True)
    """No progress bar and no remarks."""


def parser_of(options: type[Options]) -> Any:
    """Return a dataclass of the same options for tyro: one nested dataclass a group.

    An option's help text is the string below it in the source. Its default is shown where that
    says something.
    """
    texts, hints = _help_texts(options), typing.get_type_hints(options, include_extras=True)
    title, parts = "", dict[str, list[Any]]()
    own = [one for one in fields(options) if not one.kw_only]
    for one in (*own, *(one for one in fields(options) if one.kw_only)):
        title = "" if one.kw_only else options.groups.get(one.name, title)
        required = one.default is MISSING
        shown = tyro.conf.arg(
            help=texts.get(one.name, ""), help_behavior_hint=_hint,
            metavar=_metavar(one.name, hints[one.name], required),
        )  # fmt: skip
        item = (one.name, Annotated[hints[one.name], shown])
        parts.setdefault(title, []).append(item if required else (*item, one.default))
    nested = []
    for number, (title, items) in enumerate(parts.items()):
        if title:
            name, _, text = title.partition("\n")
            group: Any = make_dataclass(
                f"Group{number}", items, namespace={"__doc__": text or None}
            )
            kind: Any = Annotated[group, tyro.conf.arg(name=name)]
            nested.append((f"{_GROUP}{number}", kind, field(default_factory=group)))
    made = make_dataclass(options.__name__, [*parts.get("", ()), *nested])
    made.__doc__ = options.__doc__
    return made


_GROUP = "group_"


def _help_texts(options: type[Options]) -> dict[str, str]:
    """Return the string below each option in the source."""
    found = {}
    for kind in reversed(options.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
        for node, text in itertools.pairwise(cast(ast.ClassDef, body).body):
            if (
                isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
                and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            ):  # fmt: skip
                found[node.target.id] = " ".join(str(text.value.value).split())
    return found


def _hint(default: str) -> str:
    """Return what follows an option's help text: its default, where that says something.

    A path in the current folder is shown as a user gives it.
    """
    if default in ("", "''", "None", "False", "True"):
        return ""
    return f"(default: {default.removeprefix(f'{Path.cwd()}{os.sep}')})"


def _metavar(name: str, kind: Any, required: bool) -> str | None:
    """Return how an argument without a name is shown: `FILE`, `[FILES ...]`."""
    if tyro.conf.Positional not in getattr(kind, "__metadata__", ()):
        return None
    many = typing.get_origin(typing.get_args(kind)[0]) is tuple
    shown = f"{name.upper()} ..." if many else name.upper()
    return shown if required else f"[{shown}]"


def parse(options: type[AnyOptions], prog: str, argv: Sequence[str] | None) -> AnyOptions:
    """Read a command line; wrong usage leaves through `SystemExit(2)`."""
    parsed = vars(tyro.cli(parser_of(options), prog=prog, args=argv, config=TYRO_RULES))
    groups = [parsed.pop(name) for name in list(parsed) if name.startswith(_GROUP)]
    return options(**parsed, **{k: v for group in groups for k, v in vars(group).items()})


class _StandardError(logging.StreamHandler[Any]):
    """Logs to what `sys.stderr` is at the time: a progress bar puts its own in the place."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, stream: Any) -> None:
        pass


@dataclass(frozen=True)
class Outcome:
    """What a command hands back: the object for `--json` and the exit status."""

    result: dict[str, Any]
    status: int = DONE


def run_command(
    command: Callable[[AnyOptions], Outcome],
    options: type[AnyOptions],
    prog: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv` into `options`, run `command` on it and return the exit status.

    Args:
        command: The work.
        options: Frozen dataclass; its fields are the options, its docstring the description.
        prog: Name of the program in the help text.
        argv: Arguments, default those of the process.

    Returns:
        Exit status. Wrong usage leaves through `SystemExit(2)`, as is usual in Python.
    """
    try:
        return _run(command, options, prog, argv)
    except BrokenPipeError:
        # Whoever read the output has gone, as `| head` does: what is still in a buffer can't be
        # written, and Python would say so when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _run(
    command: Callable[[AnyOptions], Outcome],
    options: type[AnyOptions],
    prog: str,
    argv: Sequence[str] | None,
) -> int:
    parsed = parse(options, prog, argv)
    logging.basicConfig(
        level=logging.ERROR if parsed.quiet else logging.INFO,
        format="%(message)s",
        handlers=[_StandardError()],
    )
    for chatty in ("httpx", "urllib3", "matplotlib", "h5py", "transformers"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    # Third parties' remarks (deprecations and the like) say nothing to a user of a command.
    warnings.filterwarnings("ignore")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that isn't valid text must not end a run.
        sys.stdout.reconfigure(errors="backslashreplace")
    import pandas as pd  # takes a moment, which the list of commands need not wait

    # pandas holds text in pyarrow where that is installed, which refuses a name that isn't UTF-8.
    storage = pd.option_context("mode.string_storage", "python")
    try:
        with storage:
            outcome = command(parsed)
    except SerEmbedError as error:
        _fail(prog, str(error), parsed.json)
        return error.status
    except BrokenPipeError:
        raise
    except OSError as error:
        # A full disk, a folder that may not be written: the system's own words name the thing.
        return _fail(prog, _describe(error, parsed), parsed.json)
    except MemoryError:
        return _fail(prog, "not enough memory; give shorter clips or smaller batches", parsed.json)
    except Exception as error:
        # safetensors and others have errors of their own for what the disk refuses.
        if not _DISK_FULL.search(str(error)):
            raise
        return _fail(prog, _no_space("", parsed), parsed.json)
    except KeyboardInterrupt:
        print(
            f"\n{prog}: interrupted; what was reported as stored is kept, "
            "and the same command goes on from there",
            file=sys.stderr,
        )
        return INTERRUPTED
    if parsed.json:
        print(json.dumps(outcome.result), flush=True)
    return outcome.status


def command_line(prog: str, options: Options) -> str:
    """Return the command that gives these options, without what is at its default.

    How a command talks, --json and --quiet, is left out too.
    """
    hints = typing.get_type_hints(type(options), include_extras=True)
    named, positional = [], []
    for one in fields(options):
        value = getattr(options, one.name)
        if value == one.default or one.name in ("json", "quiet"):
            continue
        values = [str(v) for v in (value if isinstance(value, tuple) else (value,))]
        flag = one.name.replace("_", "-")
        if tyro.conf.Positional in getattr(hints[one.name], "__metadata__", ()):
            positional += values
        elif isinstance(value, bool):
            named.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            named += [f"--{flag}", *values]
    return shlex.join([*prog.split(), *positional, *named])


def _fail(prog: str, message: str, as_json: bool) -> int:
    print(f"{prog}: error: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": message}), flush=True)
    return FAILED


def _describe(error: OSError, options: Options) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _no_space(where, options)
    return f"{where}{error.strerror or error}"


_DISK_FULL = re.compile(
    r"No space left|os error (28|122)\b|errno = (28|122)\b|quota exceeded|"
    r"PytorchStreamWriter failed|unexpected pos \d+ vs",
    re.IGNORECASE,
)


def _no_space(where: str, options: Options) -> str:
    """Return what to say where a disk is full; without a path, of the folder that is on it."""
    if not where:
        folders = [value for value in vars(options).values() if isinstance(value, Path)]
        full = [path for path in folders if _free_bytes(path) < _LITTLE_SPACE]
        where = f"{full[0]}: " if full else ""
    return (
        f"{where}No space left on device; free some space or choose another folder, then run the "
        "same command again: it goes on from what is stored"
    )


_LITTLE_SPACE = 2**21  # bytes


def _free_bytes(path: Path) -> float:
    """Return how much room there is where a path lies or would lie."""
    there = next((one for one in (path, *path.absolute().parents) if one.exists()), None)
    return shutil.disk_usage(there).free if there else math.inf
