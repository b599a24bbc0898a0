"""The distributions: what is in them, and that the wheel works far from the checkout."""

import json
import os
import re
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import ser_embed

NOT_SHIPPED = (".ci/", ".github/", ".gitignore")  # of what git tracks


def _call(*command: object, cwd: Path) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SER_EMBED_DATA")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tracked(project: Path) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=project, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name for name in listed.stdout.split("\0") if name and (project / name).is_file()}


@pytest.fixture(scope="module")
def built(project: Path, tracked: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, and the wheel that is made from it."""
    pytest.importorskip("build")
    copy = tmp_path_factory.mktemp("checkout")
    for name in tracked:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(project / name, copy / name)
    (copy / "artifacts/features").mkdir()
    (copy / "artifacts/features/mine.h5").write_bytes(b"a user's, not ours to ship")
    out = tmp_path_factory.mktemp("dist")
    _call(sys.executable, "-m", "build", "--outdir", out, copy, cwd=out)
    return out


def test_the_source_distribution_is_what_git_tracks(built: Path, tracked: set[str]) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        files = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    made = {name for name in files if name == "PKG-INFO" or ".egg-info/" in name}
    assert files - made == {name for name in tracked if not name.startswith(NOT_SHIPPED)}


def test_the_wheel_has_the_package_and_what_ships(built: Path, tracked: set[str]) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        files = set(archive.namelist())
        told = archive.read(next(n for n in files if n.endswith("METADATA"))).decode()
    code = {name for name in tracked if name.startswith("ser_embed/")}
    shipped = {
        f"ser_embed/{name}" for name in tracked
        if name.startswith(("artifacts/encoders/", "artifacts/heads/", "artifacts/demo/"))
    }  # fmt: skip
    others = files - code - shipped
    assert files >= code | shipped
    assert all(".dist-info/" in name for name in others), others
    assert any(name.endswith("/LICENSE") for name in others)
    assert re.search(r"^Version: " + re.escape(ser_embed.__version__) + "$", told, re.M)


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts' folder of a fresh environment with the wheel.

    Its dependencies are those of this environment: torch alone would take a minute.
    """
    folder = tmp_path_factory.mktemp("fresh")
    _call(sys.executable, "-m", "venv", folder, cwd=folder)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    _call(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
          next(built.glob("*.whl")), cwd=folder)  # fmt: skip
    own = _call(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).strip()
    # A line in a .pth file comes after the environment's own packages.
    (Path(own) / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return scripts


def test_the_wheel_works_in_another_folder(installed: Path, tmp_path: Path, project: Path) -> None:
    place = _call(installed / "python", "-c", "import ser_embed; print(ser_embed.__file__)",
                  cwd=tmp_path)  # fmt: skip
    assert Path(place.strip()).is_relative_to(installed.parent.resolve())
    clip = project / "artifacts/demo/Actor_02/03-01-05-02-01-01-02.ogg"
    shutil.copyfile(clip, tmp_path / "clip.ogg")
    for prog in ((installed / "python", "-m", "ser_embed.predict"),
                 (installed / "ser_embed", "predict")):  # fmt: skip
        said = json.loads(_call(*prog, "clip.ogg", "--json", cwd=tmp_path).splitlines()[-1])
        probabilities = said["files"][0]["probabilities"]
        assert set(probabilities) == {"positive", "neutral", "negative"}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    version = _call(installed / "ser_embed", "--version", cwd=tmp_path)
    assert version.split() == ["ser_embed", ser_embed.__version__]


def test_the_installed_demo_extracts(installed: Path, tmp_path: Path) -> None:
    out = _call(installed / "python", "-m", "ser_embed.extract", "--limit", "8", "--json",
                "--quiet", "--workers", "0", cwd=tmp_path)  # fmt: skip
    told = json.loads(out.splitlines()[-1])
    assert (told["stored"], told["failed"]) == (8, 0)
    assert (tmp_path / told["store"]).is_file()


def test_the_citation_is_of_this_version(project: Path) -> None:
    yaml = pytest.importorskip("yaml")
    told = yaml.safe_load((project / "CITATION.cff").read_text(encoding="utf-8"))
    assert told["cff-version"] == "1.2.0"
    assert told["version"] == ser_embed.__version__
    assert told["license"] == "MIT"
    assert told["authors"]
