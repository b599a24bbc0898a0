"""What is drawn: it fits, it is true to the numbers, and it can do without colour and UTF-8."""

import io
import re

import numpy as np
import pytest
from rich.console import Console, RenderableType

from ser_embed.live.engine import Session
from ser_embed.live.screen import Screen, draw_bars, draw_frame, draw_line, draw_summary
from ser_embed.predict.segments import Segment

CLASSES = ("positive", "neutral", "negative")
NO_SPEECH, UNSURE = Segment.NO_SPEECH, Segment.UNSURE


def drawn(what: RenderableType, width: int = 80, colour: bool = False) -> list[str]:
    """The lines that a terminal of that width gets."""
    stream, system = io.StringIO(), "standard" if colour else None
    console = Console(file=stream, width=width, force_terminal=colour, color_system=system)  # type: ignore
    console.print(what)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip()


def segment(
    start: float, end: float, *shares: float, classes: tuple[str, ...] = CLASSES
) -> Segment:
    return Segment.judge(start, end, dict(zip(classes, shares, strict=False)), 0.5)


def session_of(*shares: float, classes: tuple[str, ...] = CLASSES, peak: float = 0.1) -> Session:
    """A session whose second half minute was speech of these probabilities."""
    session = Session(classes, seconds=75.2, peak=peak, dropped=4, overflows=2, judged=1)
    session.add(segment(0.0, 45.0))
    session.add(segment(45.0, 74.5, *shares, classes=classes))
    session.update(segment(74.5, 75.2, *shares, classes=classes), latency=0.0174)
    return session


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_a_frame_fits_its_terminal(width: int) -> None:
    session = session_of(0.713, 0.2, 0.087)
    coloured = drawn(draw_frame(session, width), width, colour=True)
    frame = drawn(draw_frame(session, width), width)
    assert [plain(line) for line in coloured] == frame
    text = "\n".join(frame)
    assert max(map(len, frame)) < width
    for shown in ("-20 dB", "71.3%", "20.0%", "8.7%", "windows 1", "dropped 4", "overflows 2"):
        assert shown in text
    if width >= 40:
        assert "latency 17 ms (mean 17)" in text
    assert frame[0] == "positive 71%"
    bars = [row.split("│")[0].count("█") for row in frame[2:5]]
    assert bars[0] > bars[1] >= bars[2]
    for line in drawn(draw_summary(session, width), width):
        assert len(line) < width


def test_a_full_terminal_shows_the_last_minute() -> None:
    frame = drawn(draw_frame(session_of(0.713, 0.2, 0.087), 80, 24))
    rows = [line.split("│") for line in frame if "│" in line]
    lanes = {" ".join(re.findall("[a-z]+", left)): lane for left, lane in rows}
    assert list(lanes) == [*CLASSES, UNSURE, NO_SPEECH]
    columns = len(lanes["positive"])  # which reaches to the present
    assert columns >= 40
    pause = round(columns * (60 - 30.2) / 60)
    assert lanes[NO_SPEECH].rstrip() in ("─" * pause, "─" * (pause + 1))
    assert set(lanes["positive"][pause + 1 :]) == {"▆"}, "0.713 of eight eighths"
    assert not lanes["positive"][: pause - 1].strip()
    assert not (lanes["neutral"] + lanes["negative"] + lanes[UNSURE]).strip()
    assert "-60 s" in "".join(frame)


def test_under_the_threshold_it_is_unsure() -> None:
    frame = drawn(draw_frame(session_of(0.49, 0.3, 0.21), 80))
    assert frame[0] == "unsure 49%"
    unsure = next(line for line in frame[1:] if line.startswith(UNSURE))
    assert unsure.rstrip().endswith("▄")


def test_the_session_forgets_what_is_over_a_minute_old() -> None:
    session = Session(CLASSES)
    for k in range(4000):
        session.add(segment(k / 2, k / 2 + 0.5, 0.6, 0.3, 0.1))
        session.update(segment(k / 2, k / 2 + 0.5))
    assert len(session.recent) <= 121
    assert session.label_seconds == {"positive": pytest.approx(2000.0)}
    assert session.means() == pytest.approx({"positive": 0.6, "neutral": 0.3, "negative": 0.1})
    session.reset()
    assert not session.recent
    assert session.means() == {}


def test_means_are_over_speech_by_its_length() -> None:
    session = Session(("a", "b"))
    session.add(segment(0.0, 1.0, 1.0, 0.0, classes=("a", "b")))
    session.add(segment(1.0, 10.0))
    session.add(segment(10.0, 13.0, 0.2, 0.8, classes=("a", "b")))
    assert session.means() == pytest.approx({"a": 0.4, "b": 0.6})
    assert session.label_seconds == {"a": 1.0, NO_SPEECH: 9.0, "b": 3.0}


def test_bars_are_proportional() -> None:
    bars = [line.split()[1] for line in drawn(draw_bars({"a": 1.0, "b": 0.5, "c": 0.25}))]
    assert [len(bar) for bar in bars] == [69, 35, 18]  # 80 columns less one, name, value, blanks
    assert bars[1] == "█" * 34 + "▌"
    assert "█" not in drawn(draw_bars({"a": 0.0}))[0]


@pytest.mark.parametrize("height", [8, 24])
def test_a_frame_of_many_classes_fits_its_terminals_height(height: int) -> None:
    classes = tuple(f"emotion{n}" for n in range(21))
    shares = np.linspace(0.001, 0.2, 21)
    frame = drawn(draw_frame(session_of(*shares, classes=classes), 80, height))
    assert len(frame) < height
    assert any(line.startswith("emotion20 ") for line in frame)
    names = [line.split()[0] for line in frame if line.startswith("emotion")]
    assert names == list(classes[-len(names) :]), "the most probable, in the classes' order"


def test_wide_characters_count_two_columns() -> None:
    frame = drawn(draw_frame(session_of(0.6, 0.4, classes=("中性", "高兴的")), 40), 40)
    assert frame[2].startswith("中性      █")
    assert frame[3].startswith("高兴的    █")


@pytest.mark.parametrize(
    ("peak", "shown", "code"),
    [(0.0, "silent", 32), (0.01, "-40 dB", 32), (0.7, "-3 dB", 33), (1.0, "0 dB", 31)],
)
def test_the_meter_shows_the_level(peak: float, shown: str, code: int) -> None:
    meter = drawn(draw_frame(session_of(0.5, 0.3, 0.2, peak=peak)), colour=True)[1]
    assert plain(meter).endswith(shown)
    assert f"\x1b[{code}" in meter


def test_before_the_first_window_and_without_speech() -> None:
    session = Session(CLASSES, seconds=1.0)
    assert drawn(draw_frame(session))[0] == "listening"
    assert drawn(draw_summary(session)) == ["heard 0:01 · windows 0 · dropped 0 · overflows 0"]
    session.update(segment(3.0, 3.0))
    assert drawn(draw_frame(session))[0] == "no speech"
    assert session.means() == {}
    session.state = "paused"
    assert drawn(draw_frame(session))[0] == "paused"


def test_lines_come_with_judgements_and_once_with_silence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    session, shares = Session(CLASSES), (0.7, 0.2, 0.1)
    for k in range(3):
        session.update(segment(0.0, k / 4))
    session.update(segment(0.0, 61.24, *shares), latency=0.01)
    session.update(segment(0.0, 61.5, *shares))
    Screen(io.StringIO()).update(session)
    assert not session.lines
    assert draw_line(segment(0.0, 61.24, *shares), 9) == (
        "   1:01.2  positive    70.0%   positive 70.0%   neutral 20.0%   negative 10.0%"
    )
    session.update(segment(0.0, 0.0))
    stream = io.StringIO()
    Screen(stream).update(session)
    assert stream.getvalue() == "   0:00.0  no speech\n"


def test_an_ascii_terminal_gets_ascii() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Screen(stream).print(draw_bars({"ärger": 0.75}))
    assert re.fullmatch(rb"\?rger #{45,50} +75.0%\n", stream.buffer.getvalue())  # type: ignore
