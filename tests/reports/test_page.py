"""The page in a real browser: nothing leaves, nothing fails, it fits a phone, sounds play."""

import base64
import html as html_text
import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_embed.audio import AudioFile
from ser_embed.audio.cutting import SAMPLE_RATE
from ser_embed.bundled import DEMO_CORPUS
from ser_embed.evaluate import __main__ as evaluate

WIDTHS = (1280, 390)  # pixels: a desk, a phone


def write(run: Path, features: Path, out: Path, *args: object) -> str:
    argv = [run, "--features-dir", features, "--out", out, "--html", *args, "--json", "--quiet"]
    assert evaluate.main([*map(str, argv)]) == 0
    return (out / "page.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(demo_runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run against another, and that of a cross-validation without sound."""
    out = tmp_path_factory.mktemp("pages")
    features = demo_runs["features"]
    write(demo_runs["speaker"], features, out / "speaker", "--against", demo_runs["kfold"])
    write(demo_runs["kfold"], features, out / "kfold", "--no-sound")
    return {name: out / name / "page.html" for name in ("speaker", "kfold")}


# --- what it says ----------------------------------------------------------------------------


def test_it_says_what_the_report_says(demo_runs: dict[str, Path], pages: dict[str, Path]) -> None:
    text = html_text.unescape(pages["speaker"].read_text())
    report = (pages["speaker"].parent / "report.md").read_text()
    scores = re.search(r"\*\*UAR ([\d.]+) \[([\d.]+), ([\d.]+)\]", report)
    assert scores
    uar, low, high = (100 * float(value) for value in scores.groups())
    assert f"UAR {uar:.1f} % [{low:.1f}, {high:.1f}] on " in text
    for part in ("leakage", "classes", "corpora", "calibration", "abstention", "groups", "mistakes",
                 "training", "settings", "paired"):  # fmt: skip
        assert f'<section id="{part}">' in text
    for warning in re.findall(r"> \*\*Careful.\*\* (.*)", report):
        assert warning in text
    assert "python -m ser_embed.train" in text
    digest = pd.read_json(demo_runs["speaker"] / "card.json", typ="series")["data_sha256"]
    assert str(digest) in text


def test_the_worst_mistakes_can_be_heard(
    demo_runs: dict[str, Path], pages: dict[str, Path]
) -> None:
    text = pages["speaker"].read_text()
    clips = pd.read_csv(pages["speaker"].parent / "predictions.csv")
    wrong = clips[clips["label"] != clips["predicted"]]
    worst = wrong.sort_values("raw_confidence", ascending=False)
    sounds = re.findall(r'<audio [^>]*src="data:audio/flac;base64,([^"]+)"', text)
    assert len(sounds) == min(10, len(wrong)) > 0
    paths = re.findall(r"<br>([^<]+)</small>", text)
    assert set(paths) <= set(worst["path"])
    for path, sound in zip(paths, sounds, strict=True):
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)), dtype="float32")
        clip = AudioFile(DEMO_CORPUS / path).read(3.0, trim=True)
        assert rate == SAMPLE_RATE
        np.testing.assert_allclose(samples, clip.samples, atol=1 / 2**14)


def test_sound_stays_out_if_wished_or_not_found(
    demo_runs: dict[str, Path], pages: dict[str, Path], tmp_path: Path
) -> None:
    assert "<audio" not in pages["kfold"].read_text()
    text = write(demo_runs["speaker"], demo_runs["features"], tmp_path, "--roots", tmp_path)
    assert "<audio" not in text
    assert "The clips' audio is not on this page." in text


def test_what_files_say_is_text_and_never_markup(
    demo_runs: dict[str, Path], tmp_path: Path
) -> None:
    """A folder may be called anything, and so may a run."""
    run = Path(shutil.copytree(demo_runs["speaker"], tmp_path / "<img src=x onerror=alert(1)>"))
    text = write(run, demo_runs["features"], tmp_path / "out")
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt; on own-test" in text


# --- in a browser ----------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["speaker", "kfold"])
def test_it_fits_and_asks_nobody(
    browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(pages[name].as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [pages[name].as_uri()]
    assert faults == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    pictures = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth])")
    assert len(pictures) == 3
    assert all(complete and wide > 100 for complete, wide in pictures)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    level = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
    assert level > 200 if scheme == "light" else level < 60
    context.close()


def test_the_players_play(browser: Any, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["speaker"].as_uri())
    players = page.locator("audio")
    assert players.count() > 0
    page.wait_for_function("[...document.querySelectorAll('audio')].every(a => a.readyState > 0)")
    lengths = page.evaluate("[...document.querySelectorAll('audio')].map(a => a.duration)")
    assert all(0.2 < seconds <= 3.05 for seconds in lengths)
    assert page.evaluate("[...document.querySelectorAll('audio')].some(a => a.error)") is False
    page.close()
