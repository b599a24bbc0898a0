"""The site: it builds strictly, it fits a phone and asks nobody, and what it shows works."""

import functools
import http.server
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ser_embed.__main__ import COMMANDS, _options
from ser_embed.bundled import DEMO_CORPUS
from ser_embed.command import parse

PROJECT = Path(__file__).resolve().parent.parent
PAGES = [*sorted((PROJECT / "docs").glob("*.md")), PROJECT / "README.md"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed (pip install 'ser_embed[docs]')")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=PROJECT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return folder


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.M | re.S)


# --- what it says ----------------------------------------------------------------------------


def test_every_command_and_public_name_has_its_place(site: Path) -> None:
    import ser_embed

    told = (site / "commands.html").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f'<h2 id="{name}">' in told
        prog = "Main.py" if name == "live" else f"-m ser_embed.{name}"
        assert f"usage: python {prog} [-h]" in told
    api = (site / "api.html").read_text(encoding="utf-8")
    for name in ser_embed.__all__:
        assert f'id="ser_embed.{name}"' in api


def test_no_page_names_the_machine_it_was_built_on(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert str(PROJECT) not in text, page
        assert str(Path.home()) + os.sep not in text, page


def shown() -> list[tuple[str, str]]:
    """Every command of ours that a page shows, with the page."""
    found = []
    for page in PAGES:
        for block in blocks(page, "bash"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, line.strip()) for line in lines
                      if line.startswith(("python -m ser_embed.", "python Main.py"))]  # fmt: skip
    return found


@pytest.mark.parametrize(("page", "line"), shown())
def test_commands_that_are_shown_have_these_options(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[1] == "Main.py":
        name, args = "live", words[2:]
    else:
        name, args = words[2].removeprefix("ser_embed."), words[3:]
    parse(_options(name), name, args)  # wrong usage would raise SystemExit


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")],
                         ids=lambda page: page.name)  # fmt: skip
def test_python_that_is_shown_runs(
    page: Path, demo_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with a clip and the demo's features, one block after the other."""
    from ser_embed import HEADS

    shutil.copytree(demo_runs["features"], tmp_path / "artifacts/features")
    clip = sorted(DEMO_CORPUS.rglob("*.ogg"))[0]
    shutil.copyfile(clip, tmp_path / "clip.wav")  # soundfile goes by content
    store = next((tmp_path / "artifacts/features").glob("*.h5"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.import_module("ser_embed.heads"), "HEADS", HEADS)
    before = dict(HEADS)
    names: dict[str, Any] = {"__name__": "shown"}
    try:
        for block in blocks(page, "python"):
            code = re.sub(r"artifacts/features/[\w-]+\.h5", store.as_posix(), block)
            exec(compile(code, page.name, "exec"), names)
    finally:
        for name in set(HEADS) - set(before):
            del HEADS[name]


# --- in a browser ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Silent, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_and_ask_nobody(browser: Any, site: Path, address: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    for file in sorted(site.glob("*.html")):
        page.goto(f"{address}/{file.name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, file.name
        broken = page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)")
        assert broken == [], file.name
    outside = {url for url in asked if not url.startswith((address, "data:", "blob:"))}
    assert outside == set()
    assert faults == []
    context.close()


def test_the_search_finds_an_option(browser: Any, site: Path, address: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{address}/index.html")
    page.locator("input.md-search__input").click()
    page.keyboard.type("loso", delay=50)
    found = page.locator(".md-search-result__link").first
    found.wait_for()
    assert found.get_attribute("href")
    page.close()
