"""The page's HTML: read by a parser, with names that would break it."""

import base64
from html.parser import HTMLParser

import numpy as np
import pytest

from ser_embed.predict.recording import Recording
from ser_embed.predict.segments import Segment
from ser_embed.web.markup import Track, render

NO_SPEECH, UNSURE = Segment.NO_SPEECH, Segment.UNSURE
EVIL = '<img src=x onerror="alert(1)">&"\''
CLASSES = ("positive", EVIL, "negative")
VOID = {"img", "path", "line", "br"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and holds every tag to its end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._open = "", list[str]()
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def pause(start: float, end: float) -> Segment:
    return Segment.judge(start, end, {}, 0.5)


def speech(start: float, end: float, *shares: float) -> Segment:
    return Segment.judge(start, end, dict(zip(CLASSES, shares, strict=True)), 0.5)


def pieces() -> list[Segment]:
    return [
        pause(10.0, 12.0), speech(12.0, 15.0, 0.7, 0.2, 0.1), speech(15.0, 16.0, 0.1, 0.6, 0.3),
        pause(16.0, 20.0), speech(20.0, 30.0, 0.4, 0.3, 0.3),
    ]  # fmt: skip


def track(labelled: list[Segment], peaks: np.ndarray | None = None) -> str:
    return render("track", Track(labelled, CLASSES, 0.5, peaks))


def whole() -> str:
    return track(pieces(), np.linspace(0, 0.5, 2_000, dtype=np.float32))


@pytest.mark.parametrize(
    "drawn",
    [
        whole(), render("error", EVIL), render("files", {EVIL: "x"}),
        render("now", Segment(0, 1, EVIL, 0.5, {EVIL: 0.5, "b": 0.5}), (EVIL, "b")),
        render("segments", [Segment(0, 1, EVIL, 0.5, {EVIL: 0.5})]),
        render("table", [EVIL], [[EVIL, EVIL]], "Files"), render("facts", {EVIL: EVIL}, [EVIL]),
        render("headline", EVIL, EVIL), render("about", {EVIL: EVIL}, [EVIL]),
        render("recording", Recording(CLASSES, 30.0, pieces(), 0.5), Track(pieces(), CLASSES, 0.5),
                          {EVIL: EVIL}),
        render("live", "Now", speech(0, 1, 0.1, 0.8, 0.1), CLASSES, Track(pieces(), CLASSES, 0.5)),
        render("batch", [[EVIL, "0:01", EVIL, "", EVIL]], 1, {EVIL: EVIL}),
    ],
)  # fmt: skip
def test_a_name_stays_a_name(drawn: str) -> None:
    read = Reader(drawn)
    assert "img" not in [tag for tag, _ in read.tags]
    assert not any(name.startswith("on") for _, attrs in read.tags for name in attrs)
    assert EVIL in read.text or any(EVIL in (v or "") for _, a in read.tags for v in a.values())


def test_lines_break_where_nobody_speaks_and_follow_the_probabilities() -> None:
    lines = [a["d"] for tag, a in Reader(whole()).tags if a.get("class") == "line"]
    assert len(lines) == 3
    # 20 s over 1000 units; 70 % is 36 of 120 units from the top
    assert lines[0] == "M100.0 36.0H250.0V108.0H300.0M500.0 72.0H1000.0"


def test_the_waveform_is_where_the_sound_is() -> None:
    """One loud hundredth of a second out of 20 s, at every place."""
    for place in (0, 331, 1_000, 2_027):
        peaks = np.zeros(2_028, dtype=np.float32)
        peaks[place] = 1
        drawn = track([speech(0.0, 20.28, 1.0, 0.0, 0.0)], peaks)
        (wave,) = [a["d"] or "" for tag, a in Reader(drawn).tags if tag == "path" and "M" in
                   (a["d"] or "") and "class" not in a]  # fmt: skip
        strokes = [part.replace("V", " ").split() for part in wave[1:].split("M")]
        tallest = max(strokes, key=lambda stroke: float(stroke[2]) - float(stroke[1]))
        assert float(tallest[0]) / 1000 == pytest.approx(place / 2_028, abs=0.002)


def test_names_stand_over_their_segments() -> None:
    spans = [
        a for tag, a in Reader(whole()).tags if "left:" in (a.get("style") or "") and "title" in a
    ]
    assert [a["title"] for a in spans] == [NO_SPEECH, "positive", EVIL, NO_SPEECH, UNSURE]
    assert (spans[1]["style"] or "").startswith("left:10.000%;width:15.000%")


@pytest.mark.parametrize(("start", "end"), [(0, 0.5), (0, 7), (3, 63), (0, 599), (0, 36_000)])
def test_the_axis_has_a_few_round_times(start: float, end: float) -> None:
    ticks = track([pause(start, end)]).split('class="times">')[1].split("</div>")[0].count("<span")
    assert 2 <= ticks <= 8


def test_a_download_is_the_text() -> None:
    (link,) = [a for tag, a in Reader(render("files", {"ü.csv": "a,高兴\n"})).tags if tag == "a"]
    assert link["download"] == "ü.csv"
    assert base64.b64decode((link["href"] or "").split(",")[1]).decode() == "a,高兴\n"


def test_what_is_unsure_says_its_best_guess() -> None:
    text = Reader(render("now", Segment(0, 1, UNSURE, 0.4, {"a": 0.3, "b": 0.4}), ("a", "b"))).text
    assert "unsure perhaps b, 40%" in text
    assert (
        Reader(render("now", Segment(0, 1, NO_SPEECH, None, {}), ("a", "b"))).text.count("0%") == 2
    )
