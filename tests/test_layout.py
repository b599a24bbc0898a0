"""The house: the order of its rooms, their faces, the public names, the options, the documents."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ser_embed.__main__ import COMMANDS, _module, _options

FOLDERS = (
    "audio", "corpora", "encoders", "store", "extract", "splits", "heads", "reports", "train",
    "finetune", "predict", "evaluate", "live", "web", "export", "pretrain",
)  # fmt: skip
"""A folder imports from those on its left."""

BASE = ("errors", "lazy", "progress", "command", "bundled", "templates", "csvfile")
"""Modules at the top that every folder may import, in their order."""

MOST_NAMES = 8  # of a face


class Import(NamedTuple):
    """`from ser_embed.PLACE import NAME`; `deep` where PLACE is a folder's file."""

    place: str
    file: str
    name: str


def _modules(project: Path) -> dict[str, Path]:
    package = project / "ser_embed"
    return {
        ".".join(path.relative_to(package).with_suffix("").parts): path
        for path in sorted(package.rglob("*.py"))
    }


def _imports(path: Path) -> Iterator[Import]:
    """What a file imports of the package, anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(a.name.startswith("ser_embed") for a in node.names), path
        if not isinstance(node, ast.ImportFrom):
            continue
        assert not node.level, f"{path}: relative import"
        parts = str(node.module).split(".")
        if parts[0] == "ser_embed":
            place, file = (*parts[1:], "", "")[:2]
            for alias in node.names:
                yield Import(place, file, alias.name)


def _faces(project: Path) -> dict[str, dict[str, str]]:
    """Each folder's names, by the file that its `__init__` takes them from."""
    return {
        folder: {
            one.name: one.file for one in _imports(project / "ser_embed" / folder / "__init__.py")
            if one.place == folder
        }
        for folder in FOLDERS
    }  # fmt: skip


def test_every_folder_has_its_place_and_its_files(project: Path) -> None:
    package = project / "ser_embed"
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert folders == set(FOLDERS)
    for folder in FOLDERS:
        assert 2 <= len(list((package / folder).glob("*.py"))) <= 12, folder
    top = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__", *BASE}
    assert top == set(COMMANDS) - folders  # thin commands, and nothing else


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_import_only_from_faces_on_their_left(folder: str, project: Path) -> None:
    faces = _faces(project)
    for name, path in _modules(project).items():
        if not name.startswith(f"{folder}."):
            continue
        for one in _imports(path):
            if one.place in (folder, *BASE) or one.name == "__version__":
                continue
            if (one.place or one.name) in BASE:
                continue
            assert one.place in FOLDERS[: FOLDERS.index(folder)], f"{name}: {one}"
            assert not one.file, f"{name} reaches past the face of {one.place}: {one}"
            assert one.name in faces[one.place], f"{name}: {one}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_of_a_folder_import_one_way(folder: str, project: Path) -> None:
    """No file of a folder leads back to itself, imports within functions counted."""
    inside = {
        name.split(".")[1]: {one.file or one.name for one in _imports(path) if one.place == folder}
        for name, path in _modules(project).items()
        if name.startswith(f"{folder}.") and not name.endswith("__init__")
    }
    left = dict(inside)
    while left:
        free = [name for name, needs in left.items() if not needs & set(left)]
        assert free, f"{folder}: {sorted(left)} import each other"
        for name in free:
            del left[name]


def test_the_modules_at_the_top_import_one_way(project: Path) -> None:
    for name in BASE:
        allowed = set(BASE[: BASE.index(name)])
        for one in _imports(project / "ser_embed" / f"{name}.py"):
            assert (one.place or one.name) in allowed, f"{name}: {one}"
    for name in set(COMMANDS) - set(FOLDERS):  # a thin command takes one file's main
        places = {(one.place, one.file) for one in _imports(project / "ser_embed" / f"{name}.py")}
        assert len(places - {(base, "") for base in BASE}) == 1, name


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_face_says_what_it_gives(folder: str, project: Path) -> None:
    face = importlib.import_module(f"ser_embed.{folder}")
    assert len(str(face.__doc__).split()) >= 6
    names = _faces(project)[folder]
    listed = getattr(face, "__all__", [])
    assert sorted(listed) == sorted(names)
    assert len(listed) <= MOST_NAMES
    for name in listed:
        assert getattr(face, name) is not None  # the lazy import knows it too
    assert not set(listed) & {path.stem for path in (project / "ser_embed" / folder).glob("*.py")}


def test_contributing_shows_the_same_order(project: Path) -> None:
    text = (project / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = text.split("```")[1]
    assert tuple(line.split()[0].rstrip("/") for line in block.strip().splitlines()) == FOLDERS


def test_contributing_shows_one_clips_way(project: Path) -> None:
    text = (project / "CONTRIBUTING.md").read_text(encoding="utf-8")
    steps = re.findall(r"`(\w+)/(\w+)\.py:([\w.]+)`", text)
    assert 5 <= len(steps) < 10
    for folder, file, name in steps:
        found: Any = importlib.import_module(f"ser_embed.{folder}.{file}")
        for part in name.split("."):
            found = getattr(found, part)
        assert callable(found)


def test_public_names_exist_and_have_docstrings(project: Path) -> None:
    for module in _modules(project):
        if module.endswith("__init__") or module == "live.capture":
            continue
        loaded = importlib.import_module(f"ser_embed.{module}")
        assert loaded.__doc__, module
        assert sorted(loaded.__all__) == sorted(set(loaded.__all__)), module
        for name in loaded.__all__:
            thing = getattr(loaded, name)
            if inspect.isfunction(thing) or inspect.isclass(thing):
                assert thing.__doc__, f"{module}.{name}"


def test_the_facade_names_what_users_import() -> None:
    import ser_embed

    assert ser_embed.__all__ == [
        "CORPORA", "ENCODERS", "HEADS", "SCHEMES", "SPLITS", "Classifier", "FeatureSettings",
        "FeatureStore", "LabelScheme", "Prediction", "Report", "SerEmbedError", "Utterance",
        "denormalise", "fit_length", "load_audio", "load_encoder", "normalise", "read_corpus",
        "read_csv",
    ]  # fmt: skip
    for name in ser_embed.__all__:
        assert getattr(ser_embed, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ser_embed.no_such_name  # type: ignore[attr-defined]


def test_importing_the_package_is_light() -> None:
    """`import ser_embed` must not load torch: the facade imports a module when it is asked."""
    code = "import sys, ser_embed; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_a_module_leaves_pandas_as_it_was() -> None:
    code = (
        "import pandas as pd; before = pd.get_option('mode.string_storage')\n"
        "import ser_embed.store.reader, ser_embed.finetune.recordings, sys\n"
        "sys.exit(pd.get_option('mode.string_storage') != before)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is(command: str) -> None:
    """Each option has a help text."""
    config = _options(command)
    file = inspect.getsourcefile(config)
    tree = ast.parse(Path(str(file)).read_text(encoding="utf-8"))
    body = next(
        n.body for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == config.__name__
    )
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and not ast.unparse(node.annotation).startswith(
            "ClassVar"
        ):
            documented = isinstance(following, ast.Expr) and isinstance(
                following.value, ast.Constant
            )
            assert documented, ast.unparse(node.target)
    assert callable(_module(command).main)


def test_readme_and_makefile_agree_on_the_commands(project: Path) -> None:
    readme = (project / "README.md").read_text(encoding="utf-8")
    for command in ("make demo", "make test", "python -m ser_embed.extract",
                    "python -m ser_embed.train --early-stop", "python Main.py"):  # fmt: skip
        assert command in readme
    makefile = (project / "Makefile").read_text(encoding="utf-8")
    assert "demo:" in makefile
    assert "test:" in makefile
    assert "make test" in (project / ".ci/run").read_text(encoding="utf-8")


def test_the_top_level_holds_only_what_belongs_there(project: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=project, capture_output=True, text=True, check=True
    )
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert top <= {
        ".ci", ".github", ".gitignore", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md",
        "LICENSE", "MANIFEST.in", "Main.py", "Makefile", "README.md", "artifacts", "benchmarks",
        "docs", "examples", "fuzz", "mkdocs.yml", "notebooks", "pyproject.toml", "ser_embed",
        "setup.cfg", "setup.py", "tests",
    }  # fmt: skip


def test_no_two_test_files_share_a_name(project: Path) -> None:
    """pytest imports them by their names alone, and ends where two are alike."""
    names = Counter(path.name for path in (project / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
