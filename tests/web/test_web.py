"""The page in a real browser: one server, one Chromium, visitors as separate contexts.

Debian: chromium. The microphone is Chromium's own fake, which plays a recording of demo clips.
"""

import importlib.util
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_embed.audio.cutting import trim_silence
from ser_embed.audio.decoding import load_audio
from ser_embed.bundled import BUNDLED_HEADS, DEMO_CORPUS
from ser_embed.predict.classifier import Classifier
from ser_embed.predict.options import SegmentSettings
from ser_embed.predict.recording import Recording
from ser_embed.predict.segments import Segment
from ser_embed.web.__main__ import main
from ser_embed.web.tabs import Tabs

for package in ("gradio", "playwright"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed (extra dev)", allow_module_level=True)
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)

from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

NO_SPEECH = Segment.NO_SPEECH
CALM = "03-01-04-02-02-02-02.ogg"  # neutral to the head that ships, and
ANGRY = "03-01-03-01-01-01-02.ogg"  # negative
SECONDS = 30_000  # milliseconds that anything on the page may take

# Runs the command, with a short queue, and writes down every address outside this machine that it
# asks for.
WATCHED = """
import sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        host = args[1][0] if event == "socket.connect" and isinstance(args[1], tuple) else args[0]
        if isinstance(host, str) and host not in ("127.0.0.1", "localhost", "::1", "0.0.0.0"):
            print("OUTSIDE", event, host, file=sys.stderr, flush=True)
sys.addaudithook(watch)
from ser_embed.web import server
from ser_embed.web.__main__ import main
server.WAITING = 3
raise SystemExit(main(sys.argv[1:]))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings to upload."""
    base = tmp_path_factory.mktemp("uploads")

    def _clip(name: str) -> np.ndarray:
        return trim_silence(load_audio(next(DEMO_CORPUS.rglob(name))))

    rng = np.random.default_rng(7)
    pause = (1e-4 * rng.standard_normal(16_000)).astype(np.float32)
    calm, angry = _clip(CALM), _clip(ANGRY)
    both = np.concatenate([pause, calm, pause, angry, pause])
    soundfile.write(base / "calm.wav", calm, 16_000)
    soundfile.write(base / "angry.flac", angry, 16_000)
    soundfile.write(base / "both.wav", both, 16_000)
    for i in range(24):
        soundfile.write(base / f"minute_{i}.flac", np.tile(both, 7), 16_000)
    soundfile.write(base / "microphone.wav", np.repeat(np.tile(angry, 4), 3), 48_000)
    soundfile.write(base / "long.flac", np.tile(pause, 61), 16_000)
    soundfile.write(base / "big.wav", np.tile(pause, 40), 16_000)  # 1.3 MB
    (base / "broken.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVE")
    return base


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The command, as a user starts it; it must have asked no other machine for anything."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", WATCHED, "--run", "sentiment3", "--port", str(port),
             "--max-minutes", "1", "--max-mb", "1", "--json"],
            stdout=file, stderr=file,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + 120
        while "open http" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield url
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    text = log.read_text()
    assert "OUTSIDE" not in text
    assert "Traceback" not in text
    assert json.loads(text.splitlines()[-1])["url"] == url


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Browser]:
    expect.set_options(timeout=SECONDS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-fake-ui-for-media-stream",
                  "--use-fake-device-for-media-stream",
                  f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}"],
        )  # fmt: skip
        yield chromium
        chromium.close()


Visit = Callable[..., Page]


@pytest.fixture
def visit(server: str, browser: Browser) -> Iterator[Visit]:
    """Open the page as a new visitor. No page may ask another server, or log an error."""
    contexts, outside, wrong = [], [], []

    def _visit(**settings: Any) -> Page:
        context = browser.new_context(permissions=["microphone"], **settings)
        context.set_default_timeout(SECONDS)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: outside.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.goto(server)
        expect(page.get_by_role("heading", name="Speech emotion: sentiment3")).to_be_visible()
        expect(page.get_by_role("button", name="Record audio")).to_be_visible()
        return page

    yield _visit
    for context in contexts:
        context.close()
    own = (server, server.replace("http", "ws"), "data:", "blob:")
    assert [url for url in outside if not url.startswith(own)] == []
    assert wrong == []


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load(BUNDLED_HEADS / "sentiment3")


def settle(page: Page) -> None:
    """Wait until no part of the page has come for a second.

    Gradio fetches its recorder late, and whoever is quicker gets none.
    """
    page.wait_for_function(
        "() => { const n = performance.getEntriesByType('resource').length;"
        " if (n !== window.seen) { window.seen = n; window.since = performance.now() }"
        " return performance.now() - window.since > 1000 }"
    )


def upload(page: Page, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(path)


def download(page: Page, name: str) -> str:
    with page.expect_download() as waiting:
        page.get_by_role("link", name=name).click()
    assert waiting.value.suggested_filename == name
    return Path(waiting.value.path()).read_text(encoding="utf-8")


def rows(page: Page) -> list[list[str]]:
    """The cells of the table that is visible."""
    lines = page.locator(".ser table:visible tbody tr").all()
    return [cell.locator("td").all_inner_texts() for cell in lines]


# --- a file ------------------------------------------------------------------------------------


def test_a_file_becomes_segments(visit: Visit, folder: Path, classifier: Classifier) -> None:
    page = visit()
    upload(page, folder / "both.wav")
    expect(page.locator(".track")).to_be_visible()
    recording = Recording.of_file(folder / "both.wav", classifier)
    labels = [NO_SPEECH, "neutral", NO_SPEECH, "negative", NO_SPEECH]
    assert [s.label for s in recording.segments] == labels
    assert [row[2] for row in rows(page)] == labels
    assert page.locator(".said").inner_text().split()[0] == recording.summary.label
    assert page.locator(".track").get_attribute("aria-label") == ", ".join(
        f"{row[2]} from {row[0]} to {row[1]}" for row in rows(page)
    )
    csv = pd.read_csv(io.StringIO(download(page, "both.csv")))
    expected = pd.read_csv(io.StringIO(recording.to_csv()))
    pd.testing.assert_frame_equal(csv, expected, atol=2e-4, rtol=0)
    assert [s["label"] for s in json.loads(download(page, "both.json"))] == labels
    assert download(page, "both.audacity.txt") == recording.to_audacity()


def test_the_microphone_records_a_file(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="Record audio").click()
    settle(page)
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(2500)
    page.get_by_role("button", name="Stop", exact=True).first.click()
    expect(page.locator(".track")).to_be_visible()
    assert page.locator(".said").inner_text().split()[0] in ("negative", "unsure")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken.wav", "broken.wav: can't be decoded"),
        ("long.flac", "long.flac: lasts 1:01.0; this page takes 1 minutes"),
    ],
)
def test_a_file_that_cant_be_used_says_why(
    visit: Visit, folder: Path, name: str, message: str
) -> None:
    page = visit()
    upload(page, folder / name)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(message)
    assert "/" not in alert.inner_text(), "where the server keeps uploads is nobody's business"
    upload_again = page.get_by_role("button", name="Clear")
    upload_again.click()
    upload(page, folder / "calm.wav")
    expect(page.locator(".said")).to_contain_text("neutral")


def test_a_file_that_is_too_big_is_refused(visit: Visit, folder: Path) -> None:
    page = visit()
    upload(page, folder / "big.wav")
    expect(page.get_by_text(re.compile("maximum allowed|exceeds", re.I)).first).to_be_visible()
    assert page.locator(".track").count() == 0


def test_what_a_microphone_leaves_behind_is_a_minute(classifier: Classifier, folder: Path) -> None:
    tabs, engine = Tabs(classifier, SegmentSettings(), 10.0, 10), None
    voice = (32_767 * load_audio(folder / "both.wav")).astype(np.int16)
    spoken = [(16_000, voice[start : start + 8_000]) for start in range(0, len(voice), 8_000)]
    for block in [*spoken, *[(48_000, np.zeros((48_000, 2), np.int16))] * 100, *spoken]:
        _, engine = tabs.stream(block, engine)
    assert engine is not None
    assert "Stopped. Mean over the speech in 1:00.0" in tabs.stop_stream(engine)[0]
    recent = engine.session.recent
    assert recent[-1].end - recent[0].start == pytest.approx(60)
    for nothing in (None, tabs.stream(None, None)[1]):
        assert "Stopped" not in tabs.stop_stream(nothing)[0]


# --- two visitors ------------------------------------------------------------------------------


def test_two_visitors_see_only_their_own(visit: Visit, folder: Path) -> None:
    one, two = visit(), visit()
    upload(one, folder / "calm.wav")
    upload(two, folder / "angry.flac")
    expect(one.locator(".said")).to_contain_text("neutral")
    expect(two.locator(".said")).to_contain_text("negative")
    assert one.get_by_role("link", name="calm.csv").count() == 1
    assert two.get_by_role("link", name="angry.csv").count() == 1
    assert "angry" not in one.content()
    assert "calm" not in two.content()
    for page in (one, two):
        page.get_by_role("tab", name="Live").click()
        settle(page)
        page.get_by_role("button", name="Record").last.click()
    expect(one.locator(".said:visible")).to_contain_text("negative")
    expect(two.locator(".said:visible")).to_contain_text("negative")
    one.get_by_role("button", name="Stop").first.click()
    expect(one.get_by_text("Stopped. Mean over the speech")).to_be_visible()
    assert two.get_by_text("Stopped.").count() == 0
    assert two.get_by_text("Now", exact=True).count() == 1
    newcomer = visit()
    assert newcomer.locator(".said").count() == 0


# --- many files --------------------------------------------------------------------------------


def test_a_batch_is_a_table_with_a_row_for_what_failed(visit: Visit, folder: Path) -> None:
    page = visit()
    page.get_by_role("tab", name="Batch").click()
    page.get_by_role("button", name="Classify").click()
    expect(page.get_by_role("alert")).to_contain_text("Choose one or more files first.")
    names = ["calm.wav", "broken.wav", "angry.flac"]
    page.locator("input[type=file]").last.set_input_files([folder / name for name in names])
    expect(page.get_by_role("cell", name="angry.flac")).to_be_visible()
    page.get_by_role("button", name="Classify").click()
    expect(page.get_by_text("3 of 3 files")).to_be_visible()
    assert [(row[0], row[2]) for row in rows(page)] == [
        ("calm.wav", "neutral"), ("broken.wav", "failed"), ("angry.flac", "negative"),
    ]  # fmt: skip
    table = pd.read_csv(io.StringIO(download(page, "emotions.csv")))
    assert table["file"].tolist() == names
    assert table["label"].fillna("").tolist() == ["neutral", "", "negative"]
    assert "can't be decoded" in table["error"][1]
    shares = table[["p_positive", "p_neutral", "p_negative"]].sum(axis=1)[[0, 2]]
    np.testing.assert_allclose(shares, 1, atol=1e-4)
    assert table["seconds"][0] == pytest.approx(
        len(load_audio(folder / names[0])) / 16_000, abs=1e-3
    )


# --- everyone can use it -----------------------------------------------------------------------


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    page = visit()
    seen: list[str] = []
    for _ in range(12):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "() => { const e = document.activeElement;"
            " return e.getAttribute('aria-label') || e.innerText.trim() }"
        )
        seen.append(name.split("\n")[0])
        if name == "Live":
            page.keyboard.press("Enter")
    assert seen[:3] == ["File", "Live", "Batch"]
    assert "About the model" in seen
    expect(page.get_by_role("tab", name="Live")).to_have_attribute("aria-selected", "true")
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('button, input, select, a')]"
        ".filter(e => e.offsetParent && !(e.getAttribute('aria-label') || e.innerText.trim()"
        " || e.title || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert unnamed == []


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, as WCAG 2 defines it."""
    channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_readably(visit: Visit, folder: Path, scheme: str) -> None:
    page = visit(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    upload(page, folder / "both.wav")
    expect(page.locator(".track")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) < 0.2) == (scheme == "dark")
    for selector in (".said", ".quiet", "td", ".times", ".names b", ".files a"):
        colour = page.locator(f".ser {selector}").first.evaluate("e => getComputedStyle(e).color")
        lighter, darker = sorted((luminance(colour), luminance(ground)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, f"{selector}: {colour} on {ground}"


def test_it_says_what_the_model_is(visit: Visit) -> None:
    page = visit()
    page.get_by_text("About the model").click()
    facts = page.locator("dl")
    report = json.loads((BUNDLED_HEADS / "sentiment3/report.json").read_text())
    low, high = report["uar_ci"]
    for text in (
        "ravdess, 1,440 clips (CC BY-NC-SA 4.0)",
        f"recall {report['uar']:.1%}",
        f"{low:.1%} to {high:.1%}",
        "kfold",
        "Not for decisions about people",
    ):
        expect(facts).to_contain_text(text)


def test_browsers_are_told_to_ask_no_other_server(server: str) -> None:
    with urllib.request.urlopen(server) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


# --- more visitors than it takes ---------------------------------------------------------------


def test_who_comes_when_the_queue_is_full_is_told(visit: Visit, folder: Path) -> None:
    """The last test of the page: the server is told to end while it still works."""
    visitors = [visit() for _ in range(6)]  # two are served, three wait
    minutes = sorted(folder.glob("minute_*"))
    for number, page in enumerate(visitors):
        files = minutes if number < 2 else minutes[-1:]  # those who are served have long to do
        page.get_by_role("tab", name="Batch").click()
        page.locator("input[type=file]").last.set_input_files(files)
        expect(page.get_by_role("cell", name=minutes[-1].name)).to_be_visible()
    buttons = [page.get_by_role("button", name="Classify") for page in visitors]
    for button in buttons:
        button.dispatch_event("click")  # at once: a slow machine would be done with the first
    busy = re.compile("busy. Please try again")
    refused, deadline = [], time.monotonic() + SECONDS / 1000
    while not refused and time.monotonic() < deadline:  # on a busy machine, not always the last
        page.wait_for_timeout(200)
        refused = [visitor for visitor in visitors if visitor.get_by_text(busy).count()]
    assert 1 <= len(refused) <= 3, "the queue holds three"
    assert all(visitor in visitors[2:] for visitor in refused)
    expect(visitors[0].get_by_text(re.compile(r"\b([1-9]|1\d|2[0-3]) of 24 files"))).to_be_visible()
    visitors[0].get_by_role("button", name="Stop").dispatch_event("click")
    page.wait_for_timeout(1000)
    shown = visitors[0].locator(".ser [role=status]").inner_text()
    page.wait_for_timeout(3000)
    assert visitors[0].locator(".ser [role=status]").inner_text() == shown
    assert not shown.startswith("24 of 24")


# --- the command -------------------------------------------------------------------------------


def test_an_address_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert f"port {port} (Address already in use" in error
    assert "give another --port" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "port 70000"),
        (["--host", "203.0.113.1"], "can't serve on 203.0.113.1"),
        (["--max-files", "0"], "--max-files: give a number above 0"),
        (["--threshold", "2"], "threshold 2.0: give a confidence"),
    ],
)
def test_options_that_make_no_sense_are_named(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 1
    assert message in capsys.readouterr().err


def test_without_gradio(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["--port", str(free_port())]) == 1
    error = capsys.readouterr().err
    assert error.strip().endswith("gradio is not installed: pip install 'ser_embed[web]'")
