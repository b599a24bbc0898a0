"""The notebooks: they run from start to end in a fresh clone, and what they keep is clean."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from ser_embed.bundled import DEMO_CORPUS

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def clone(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the notebooks use: one after the other they fill its ignored folders."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("ser_embed", "notebooks", "examples", "artifacts/demo", "artifacts/encoders/mini",
                 "artifacts/heads"):  # fmt: skip
        shutil.copytree(project / name, folder / name,
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    shutil.copyfile(project / "Main.py", folder / "Main.py")
    assert DEMO_CORPUS.is_relative_to(project)
    return folder


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def problems(notebook: Any) -> list[str]:
    """What must not be in a notebook's outputs: errors, remarks on stderr, paths of a machine."""
    found = []
    for output in outputs(notebook):
        data = {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")}
        text = json.dumps({**output, "data": data})
        if output["output_type"] == "error" or output.get("name") == "stderr":
            found.append(text[:300])
        found += re.findall(
            r"Traceback|error: [^\"]*|[\" ](?:/home|/root|/Users|/tmp)/[^\"]*", text
        )
        found += re.findall(re.escape(str(PROJECT)), text)
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_it_runs_from_start_to_end(clone: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    if name.startswith("04"):
        pytest.importorskip("onnxruntime")
    # The notebooks' shell lines find this interpreter and this copy.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(clone))
    notebook = nbformat.read(clone / "notebooks" / name, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=400, kernel_name="python3",
        resources={"metadata": {"path": str(clone / "notebooks")}},
    ).execute()  # fmt: skip
    assert problems(notebook) == []
    kinds = {kind for output in outputs(notebook) for kind in output.get("data", {})}
    assert "image/png" in kinds


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_what_it_keeps_is_clean_and_whole(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert problems(notebook) == []
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not any(re.search(r"^\s*(def|class) ", "".join(cell["source"]), re.M) for cell in code)
    assert path.stat().st_size < 500_000
