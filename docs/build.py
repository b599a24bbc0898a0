"""What the site takes from the project itself when it is built: help, API, results, pictures.

A hook of MkDocs. The help texts are what the commands print, the API is the docstrings of what
`ser_embed` exports, and the results are the files in artifacts/results.
"""

import contextlib
import io
import os
import posixpath
import re
import warnings
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import ser_embed
from ser_embed.__main__ import COMMANDS, _module

PROJECT = Path(__file__).resolve().parent.parent
RELATIVE = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)#]+)\)")
LINK = re.compile(r"(!?\[[^\]]*\]\()(?:\.\./)?artifacts/([^)#]+)(\))")


def help_of(command: str) -> str:
    """Return what `--help` of a command prints, 80 columns wide."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        _module(command).main(["--help"])
    return printed.getvalue().rstrip()


def command_page() -> str:
    """Return the page of all commands, each with its help."""
    parts = ["# Commands\n\nWhat `--help` prints, as it was when these pages were built.\n"]
    for name, about in COMMANDS.items():
        parts.append(f"## {name}\n\n{about}\n\n```text\n{help_of(name)}\n```\n")
    return "\n".join(parts)


def api_page() -> str:
    """Return the page of the public names, for mkdocstrings to fill."""
    lines = ["# Python API\n\n`from ser_embed import NAME`.\n"]
    for name in ser_embed.__all__:
        lines.append(f"::: ser_embed.{name}\n")
    return "\n".join(lines)


def results_page() -> str:
    """Return the README's section of results, and the whole tables behind its short ones."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    section = readme.split("\n## Results\n")[1].split("\n## ")[0]
    parts = [f"# Results\n{section}"]
    for name in ("cross-corpus", "cross-corpus-random-mini", "robustness",
                 "robustness-random-mini"):  # fmt: skip
        file = PROJECT / "artifacts/results" / name / f"{name.removesuffix('-random-mini')}.md"
        if file.is_file():
            text = file.read_text(encoding="utf-8").replace("\n# ", "\n## ")
            text = f"#{text}" if text.startswith("# ") else text
            suffix = ", untrained control" if name.endswith("-random-mini") else ""
            text = re.sub(r"\A(## .*)", rf"\1{suffix}", text)
            parts.append(text.replace("](", f"](artifacts/results/{name}/"))
    return "\n".join(parts)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the files of artifacts/ that pages point at."""
    os.environ["COLUMNS"] = "80"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that the commands load
        pages = {"commands.md": command_page(), "api.md": api_page(), "results.md": results_page()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    written = Path(__file__).parent.glob("*.md")
    texts = [*pages.values(), *(path.read_text(encoding="utf-8") for path in written)]
    for target in sorted({match[2] for text in texts for match in LINK.finditer(text)}):
        _add(files, config, f"artifacts/{target}")
    return files


def _add(files: Files, config: MkDocsConfig, name: str) -> None:
    """Add a file of the project, and what a report among them shows."""
    source = PROJECT / name
    if name in files.src_uris or not source.is_file():
        return
    files.append(File.generated(config, name, abs_src_path=str(source)))
    if source.suffix == ".md":
        for shown in re.findall(r"\]\(([\w.-]+)\)", source.read_text(encoding="utf-8")):
            _add(files, config, f"{Path(name).parent.as_posix()}/{shown}")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that lead out of docs/ at the copies; unlink what has none."""
    del config
    name = page.file.src_uri
    if not name.startswith("artifacts/"):
        return LINK.sub(r"\1artifacts/\2\3", markdown)

    def linked(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), match[2]))
        return match[0] if target in files.src_uris else match[1]

    return RELATIVE.sub(linked, markdown)
