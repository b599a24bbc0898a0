"""The house: the order of the modules, the public names, the options, the documents."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

ORDER = (
    "errors", "command", "bundled", "labels", "naming", "cutting", "audio", "conditions",
    "descriptors", "speech", "tasks", "pretrain", "listing", "corpora", "archives", "transfer",
    "sources", "download", "synthesiser", "demo", "backends", "features", "logmel", "checkpoints",
    "graph", "encoder", "table", "shards", "store", "ledger", "builder", "writer", "sharding",
    "index", "workers", "reading", "encoding", "blocks", "distributed", "extract", "data",
    "splits", "networks", "heads", "endtoend", "plots", "report", "breakdown", "perturb",
    "second_task", "fit", "runs", "paired", "originals", "page", "progress", "pseudo",
    "weighting", "search", "train", "recipes", "augment", "recordings", "probe", "trace",
    "trainer", "tuning", "finetune", "predict", "parity", "hub_model", "hub", "onnxfile",
    "export", "evaluate", "robustness", "crosscorpus", "svm", "contestants", "compare", "capture",
    "ring", "microphone", "speech_gate", "segments", "segmenter", "session", "journal",
    "listener", "keyboard", "screen", "watch", "live", "markup", "tabs", "web", "__main__",
)  # fmt: skip

COMMANDS = (
    "extract", "train", "evaluate", "predict", "export", "corpora", "store", "demo", "live",
    "pretrain", "finetune", "web", "download", "robustness", "crosscorpus", "compare",
)  # fmt: skip


def test_every_module_has_its_place(project: Path) -> None:
    modules = {path.stem for path in (project / "ser_embed").glob("*.py")} - {"__init__"}
    assert modules == set(ORDER)


def _imports(path: Path) -> set[str]:
    """Names of the package's modules that a file imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "ser_embed":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ser_embed."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("ser_embed.")}
        elif isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{path.name}: relative import")
    return found & set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_modules_import_only_from_their_left(module: str, project: Path) -> None:
    left = set(ORDER[: ORDER.index(module)])
    assert _imports(project / "ser_embed" / f"{module}.py") <= left


def test_contributing_shows_the_same_order(project: Path) -> None:
    text = (project / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = text.split("```")[1]
    assert tuple(block.replace("->", " ").split()) == ORDER


@pytest.mark.parametrize("module", ORDER)
def test_public_names_exist_and_have_docstrings(module: str) -> None:
    loaded = importlib.import_module(f"ser_embed.{module}")
    assert loaded.__doc__
    assert sorted(loaded.__all__) == sorted(set(loaded.__all__))
    for name in loaded.__all__:
        thing = getattr(loaded, name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            assert thing.__doc__, f"{module}.{name}"


def test_the_facade_names_what_users_import() -> None:
    import ser_embed

    assert ser_embed.__all__ == [
        "Classifier", "CORPORA", "ENCODERS", "FeatureDataset", "FeatureSettings", "FeatureStore",
        "HEADS", "LabelScheme", "Prediction", "Report", "SCHEMES", "SPLITS", "SerEmbedError",
        "Utterance", "denormalise", "fit_length", "load_audio", "load_encoder",
        "normalise", "read_corpus", "read_csv",
    ]  # fmt: skip
    for name in ser_embed.__all__:
        assert getattr(ser_embed, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ser_embed.no_such_name


def test_importing_the_package_is_light() -> None:
    """`import ser_embed` must not load torch: the facade imports a module when it is asked."""
    code = "import sys, ser_embed; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_a_module_leaves_pandas_as_it_was() -> None:
    code = (
        "import pandas as pd; before = pd.get_option('mode.string_storage')\n"
        "import ser_embed.store, ser_embed.recordings, sys\n"
        "sys.exit(pd.get_option('mode.string_storage') != before)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is(command: str) -> None:
    """Each option has a help text, and none of the defaults of the common ones differ."""
    module = importlib.import_module(f"ser_embed.{command}")
    config = next(
        getattr(module, name) for name in dir(module)
        if name.endswith("Config") and getattr(module, name).__module__ == module.__name__
    )  # fmt: skip
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    body = next(
        n.body for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == config.__name__
    )
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            documented = isinstance(following, ast.Expr) and isinstance(
                following.value, ast.Constant
            )
            assert documented, ast.unparse(node.target)


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
