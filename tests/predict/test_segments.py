"""Merging by its properties, and the files by programs that read such files."""

import io
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_embed.predict.recording import Recording
from ser_embed.predict.segments import Segment, clock

NO_SPEECH, UNSURE = Segment.NO_SPEECH, Segment.UNSURE
CLASSES = ("positive", "neutral", "negative")

# Quarters of a second and 64ths of a probability: sums of them are exact.
shares = st.lists(st.integers(0, 64), min_size=3, max_size=3).filter(any)
tracks = st.lists(st.tuples(st.integers(1, 12), st.none() | shares), min_size=1, max_size=40)


def pieces_of(track: list[tuple[int, list[int] | None]], threshold: float = 0.5) -> list[Segment]:
    pieces, at = [], 0.0
    for quarters, shares in track:
        values = [share / sum(shares) for share in shares or ()]
        named = dict(zip(CLASSES, values, strict=False))
        pieces.append(Segment.judge(at, at + quarters / 4, named, threshold))
        at += quarters / 4
    return pieces


@given(tracks, st.sampled_from([0.0, 0.5, 0.75, 1.0]))
def test_segments_cover_the_recording_in_order(
    track: list[tuple[int, list[int] | None]], threshold: float
) -> None:
    pieces = pieces_of(track, threshold)
    segments = Segment.merge(pieces)
    assert segments[0].start == 0
    assert segments[-1].end == pieces[-1].end
    for one, following in pairwise(segments):
        assert one.start < one.end == following.start
        assert one.label != following.label


@given(tracks, st.sampled_from([0.0, 0.5, 0.75, 1.0]))
def test_every_instant_keeps_the_label_of_its_piece(
    track: list[tuple[int, list[int] | None]], threshold: float
) -> None:
    pieces = pieces_of(track, threshold)
    segments = Segment.merge(pieces)
    for piece in pieces:
        values = list(piece.probabilities.values())
        if not values:
            label = NO_SPEECH
        elif max(values) < threshold:
            label = UNSURE
        else:
            label = CLASSES[int(np.argmax(values))]
        (holder,) = [s for s in segments if s.start <= piece.start and piece.end <= s.end]
        assert holder.label == label


@given(tracks)
def test_a_segment_has_the_mean_over_its_time(track: list[tuple[int, list[int] | None]]) -> None:
    pieces = pieces_of(track)
    for segment in Segment.merge(pieces):
        quarters = [  # the same mean, counted quarter by quarter
            list(piece.probabilities.values())
            for piece in pieces
            for _ in range(round((piece.end - piece.start) * 4))
            if segment.start <= piece.start < segment.end and piece.probabilities
        ]
        assert (segment.label == NO_SPEECH) == (not quarters)
        if quarters:
            expected = np.mean(quarters, axis=0)
            np.testing.assert_allclose(list(segment.probabilities.values()), expected, atol=1e-12)
            assert segment.confidence == max(segment.probabilities.values())
            assert sum(segment.probabilities.values()) == pytest.approx(1)
        else:
            assert (segment.confidence, segment.probabilities) == (None, {})


def test_a_confidence_at_the_threshold_is_sure_enough() -> None:
    half = dict(zip(CLASSES, (0.5, 0.25, 0.25), strict=True))
    assert Segment.judge(0, 1, half, 0.5).label == "positive"
    assert Segment.judge(0, 1, half, 0.51).label == UNSURE
    pause = Segment.judge(0, 1, {}, 0.0)
    assert pause.label == NO_SPEECH
    assert Segment.mean([pause, pause], 0.5) == pause


def test_what_lies_apart_is_not_joined() -> None:
    one = Segment.judge(0, 1, {"a": 1.0}, 0.5)
    apart, next_one = replace(one, start=2, end=3), replace(one, start=3, end=4)
    assert Segment.merge([one, apart, next_one]) == [one, replace(apart, end=4)]


# --- files -------------------------------------------------------------------------------------

SEGMENTS = [
    Segment(0.0, 1.25, NO_SPEECH, None, {}),
    Segment(1.25, 4.0, "sad, tired", 0.75, {"sad, tired": 0.75, '高兴 "x"': 0.25}),
    Segment(4.0, 65.5, UNSURE, 0.4375, {"sad, tired": 0.4375, '高兴 "x"': 0.4}),
]
NAMES = ("sad, tired", '高兴 "x"')
RECORDING = Recording(NAMES, 65.5, SEGMENTS, 0.5)


def test_csv_is_read_back_by_pandas() -> None:
    table = pd.read_csv(io.StringIO(RECORDING.to_csv()))
    assert list(table) == ["start", "end", "label", "confidence", "p_sad, tired", 'p_高兴 "x"']
    assert table["label"].tolist() == [s.label for s in SEGMENTS]
    assert table["end"].tolist() == [1.25, 4.0, 65.5]
    assert table["confidence"].isna().tolist() == [True, False, False]
    assert table['p_高兴 "x"'].tolist()[1:] == [0.25, 0.4]


def test_json_is_read_back() -> None:
    rows = json.loads(RECORDING.to_json())
    assert [Segment(**row) for row in rows] == SEGMENTS


def test_an_audacity_label_track_has_a_line_a_segment() -> None:
    odd = [*SEGMENTS, Segment(65.5, 66.0, "a\tb\nc", 1.0, {})]
    text = Recording(NAMES, 66.0, odd, 0.5).to_audacity()
    rows = [line.split("\t") for line in text.splitlines()]
    assert [(float(start), float(end)) for start, end, _ in rows] == [(s.start, s.end) for s in odd]
    assert [label for *_, label in rows] == [
        NO_SPEECH,
        "sad, tired",
        UNSURE,
        "a b c",
    ]


def test_the_table_is_for_reading() -> None:
    lines = RECORDING.to_table().splitlines()
    assert lines[0].split() == ["0:00.0", "-", "0:01.2", "no", "speech"]
    assert "1:05.5  unsure" in lines[2]
    assert lines[2].split()[4] == "44%"
    assert len({line.index(" - ") for line in lines}) == 1
    assert Recording(NAMES, 0.0, [], 0.5).to_table() == ""


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00.0"),
        (59.94, "0:59.9"),
        (59.96, "1:00.0"),
        (754.32, "12:34.3"),
        (3723.5, "1:02:03.5"),
    ],
)
def test_a_clock_never_shows_sixty_seconds(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
