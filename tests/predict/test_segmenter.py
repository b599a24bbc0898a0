"""Cutting and labelling with the head that ships, on recordings made of the demo's clips.

What a clip's segment ought to say is what the classifier says of the clip alone.
"""

import sys
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ser_embed.audio.cutting import trim_silence
from ser_embed.audio.decoding import load_audio
from ser_embed.bundled import BUNDLED_HEADS, DEMO_CORPUS
from ser_embed.errors import AudioError
from ser_embed.predict.classifier import Classifier, Prediction
from ser_embed.predict.segmenter import (
    PEAK_SECONDS,
    Recording,
    Segmenter,
    SegmentSettings,
    segment_file,
    segment_samples,
)
from ser_embed.predict.segments import NO_SPEECH, UNSURE, Piece, merge_pieces

CALM = "Actor_02/03-01-04-02-02-02-02.ogg"  # neutral to the head that ships, and
ANGRY = "Actor_02/03-01-03-01-01-01-02.ogg"  # negative, each with 0.8 or more


@pytest.fixture(scope="module", autouse=True)
def energy_gate() -> Iterator[None]:
    """The same gate everywhere: pauses where they were put, also where silero-vad isn't."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "silero_vad", None)
        yield


class Counting(Classifier):
    """The classifier, counting what it is asked."""

    calls = 0

    def classify(self, samples: np.ndarray, rate: int = 16_000) -> Prediction:
        self.calls += 1
        return super().classify(samples, rate)


@pytest.fixture(scope="module")
def classifier() -> Counting:
    loaded = Counting.load(BUNDLED_HEADS / "sentiment3")
    assert isinstance(loaded, Counting)
    return loaded


def clip(name: str) -> np.ndarray:
    return trim_silence(load_audio(DEMO_CORPUS / name))


def voice(name: str) -> np.ndarray:
    """A clip without the pauses in it."""
    frames = clip(name)[: len(clip(name)) // 1_600 * 1_600].reshape(-1, 1_600)
    return frames[np.abs(frames).max(axis=1) > 0.02].ravel()


def pause(seconds: float) -> np.ndarray:
    """A quiet room: noise 80 dB below full scale."""
    rng = np.random.default_rng(7)
    return (1e-4 * rng.standard_normal(round(seconds * 16_000))).astype(np.float32)


@pytest.fixture(scope="module")
def dialogue() -> np.ndarray:
    """1 s of pause, a calm clip, 1.5 s of pause, an angry clip, 1 s of pause."""
    return np.concatenate([pause(1), clip(CALM), pause(1.5), clip(ANGRY), pause(1)])


@pytest.fixture(scope="module")
def heard(classifier: Counting, dialogue: np.ndarray) -> Recording:
    return segment_samples(dialogue, classifier)


def test_two_clips_are_two_segments_between_pauses(classifier: Counting, heard: Recording) -> None:
    labels = [segment.label for segment in heard.segments]
    alone = [classifier.classify(clip(name)) for name in (CALM, ANGRY)]
    assert [p.label for p in alone] == ["neutral", "negative"], "the clips no longer differ"
    assert labels == [NO_SPEECH, "neutral", NO_SPEECH, "negative", NO_SPEECH]
    calm, angry = len(clip(CALM)) / 16_000, len(clip(ANGRY)) / 16_000
    true_edges = np.cumsum([1, calm, 1.5, angry])
    edges = [segment.end for segment in heard.segments[:-1]]
    np.testing.assert_allclose(edges, true_edges, atol=0.5)
    for segment, prediction in zip(heard.segments[1::2], alone, strict=True):
        assert segment.confidence == pytest.approx(prediction.confidence, abs=0.15)


def test_silero_finds_the_same_two_clips(
    classifier: Counting, dialogue: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "silero_vad")
    pytest.importorskip("silero_vad")
    labels = [segment.label for segment in segment_samples(dialogue, classifier).segments]
    assert labels == [NO_SPEECH, "neutral", NO_SPEECH, "negative", NO_SPEECH]


def test_the_summary_is_the_mean_over_speech(heard: Recording) -> None:
    speech = [s for s in heard.segments if s.label != NO_SPEECH]
    weights = [s.end - s.start for s in speech]
    for name in heard.classes:
        mean = np.average([s.probabilities[name] for s in speech], weights=weights)
        assert heard.summary.probabilities[name] == pytest.approx(mean)
    assert (heard.summary.start, heard.summary.end) == (0, heard.seconds)


def test_the_envelope_is_the_loudest_sample(heard: Recording, dialogue: np.ndarray) -> None:
    n = round(PEAK_SECONDS * 16_000)
    expected = [np.abs(dialogue[i : i + n]).max() for i in range(0, len(dialogue), n)]
    np.testing.assert_array_equal(heard.peaks, np.array(expected, dtype=np.float32))


def test_a_file_is_heard_like_its_samples(
    tmp_path: Path, classifier: Counting, dialogue: np.ndarray, heard: Recording
) -> None:
    path = tmp_path / "dialogue.wav"
    soundfile.write(path, dialogue, 16_000, subtype="FLOAT")
    told: list[float] = []
    assert segment_file(path, classifier, told=told.append).segments == heard.segments
    assert told == sorted(told)
    assert told[-1] == pytest.approx(heard.seconds)


def test_without_a_pause_the_label_changes_where_the_voice_does(classifier: Counting) -> None:
    calm, angry = np.tile(voice(CALM), 3), np.tile(voice(ANGRY), 3)
    segments = segment_samples(np.concatenate([calm, angry]), classifier).segments
    known = [s for s in segments if s.label != UNSURE]
    assert [s.label for s in known] == ["neutral", "negative"]
    reach = 1.5 + 0.5  # half a window, and a hop by the smoothing
    assert known[0].end == pytest.approx(len(calm) / 16_000, abs=reach)
    assert known[1].start == pytest.approx(len(calm) / 16_000, abs=reach)


def test_a_threshold_makes_unsure_and_nothing_else(
    classifier: Counting, dialogue: np.ndarray, heard: Recording
) -> None:
    unsure = segment_samples(dialogue, classifier, SegmentSettings(threshold=1.0))
    assert {s.label for s in unsure.segments} == {NO_SPEECH, UNSURE}
    for one, other in zip(unsure.pieces, heard.pieces, strict=True):
        assert (one.start, one.end) == (other.start, other.end)


def test_smoothing_is_a_moving_average(classifier: Counting) -> None:
    voice = np.concatenate([clip(CALM), clip(ANGRY), clip(CALM)])
    raw = segment_samples(voice, classifier, SegmentSettings(smooth=1)).pieces
    smooth = segment_samples(voice, classifier, SegmentSettings(smooth=5)).pieces
    assert len(raw) == len(smooth) > 5
    values = np.array([p.probabilities for p in raw])
    expected = [values[max(0, i - 2) : i + 3].mean(axis=0) for i in range(len(values))]
    np.testing.assert_allclose([p.probabilities for p in smooth], expected, atol=1e-12)


@settings(max_examples=12, deadline=None, phases=(Phase.generate,))
@given(
    st.lists(
        st.tuples(st.sampled_from([CALM, ANGRY, "pause", "zeros"]), st.integers(20, 4_000)),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([0.4, 0.5, 1.3]),
    st.data(),
)
def test_any_recording_is_covered_however_it_comes(
    classifier: Counting, parts: list[tuple[str, int]], hop: float, data: st.DataObject
) -> None:
    """Milliseconds of clips and pauses; in blocks of any length it is the same."""
    sounds = {
        CALM: np.tile(clip(CALM), 3), ANGRY: np.tile(clip(ANGRY), 3),
        "pause": pause(4.0), "zeros": np.zeros(64_000, np.float32),
    }  # fmt: skip
    samples = np.concatenate([sounds[kind][-16 * ms :] for kind, ms in parts])
    length = len(samples) / 16_000
    if len(samples) < 400:
        with pytest.raises(AudioError, match="at least 400"):
            segment_samples(samples, classifier)
        return
    chosen = SegmentSettings(hop=hop)
    whole = segment_samples(samples, classifier, chosen)
    for found in (whole.pieces, whole.segments):
        assert found[0].start == 0
        assert found[-1].end == pytest.approx(length)
        for one, following in pairwise(found):
            assert one.start < one.end == following.start
    segmenter, pieces, at = Segmenter(classifier, chosen), [], 0
    while at < len(samples):
        n = data.draw(st.integers(1, 40_000))
        pieces += segmenter.push(samples[at : at + n])
        at += n
    pieces += segmenter.finish()
    merged = merge_pieces(pieces, classifier.classes, chosen.threshold)
    assert merged == whole.segments


# --- live --------------------------------------------------------------------------------------


def live(segmenter: Segmenter, samples: np.ndarray, block: int = 8_000) -> list[Piece]:
    pieces = []
    for start in range(0, len(samples), block):
        pieces += segmenter.push(samples[start : start + block])
    return pieces


def test_live_says_what_is_being_heard(classifier: Counting) -> None:
    segmenter = Segmenter(classifier, live=True)
    assert segmenter.now.label == NO_SPEECH
    said = []
    for part in (pause(1.5), np.tile(clip(CALM), 2), pause(1.5), np.tile(clip(ANGRY), 2), pause(1)):
        live(segmenter, part)
        said.append(segmenter.now.label)
    assert said == [NO_SPEECH, "neutral", NO_SPEECH, "negative", NO_SPEECH]


def test_live_guesses_after_a_second_of_speech(classifier: Counting) -> None:
    segmenter = Segmenter(classifier, live=True)
    live(segmenter, clip(CALM)[:24_000])  # half the length of a window
    assert segmenter.now.label == "neutral"
    assert segmenter.push(pause(1))[-1].probabilities is not None


def test_who_falls_behind_judges_the_newest_window_alone(classifier: Counting) -> None:
    minute = np.tile(np.concatenate([clip(CALM), clip(ANGRY)]), 12)
    before = classifier.calls
    segmenter = Segmenter(classifier, live=True)
    live(segmenter, minute, block=10 * 16_000)
    assert classifier.calls - before <= -(-len(minute) // 160_000)
    pieces = segmenter.finish()
    assert pieces[-1].end == pytest.approx(len(minute) / 16_000)


def test_a_stream_without_a_pause_doesnt_grow(classifier: Counting) -> None:
    voice = np.tile(clip(CALM), 2)
    segmenter = Segmenter(classifier, live=True)
    live(segmenter, voice)
    found = []
    tracemalloc.start()
    for _ in range(10):
        found += live(segmenter, voice)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(found) > 50, "pieces come while the voice goes on"
    assert size < 400_000, "ten times the voice would be 3 MB of float32"


# --- what can't be used ------------------------------------------------------------------------


def test_silence_is_one_segment(classifier: Counting) -> None:
    recording = segment_samples(np.zeros(50_000, np.float32), classifier)
    assert [s.label for s in recording.segments] == [NO_SPEECH]
    assert recording.summary.label == NO_SPEECH
    assert recording.summary.confidence is None


def test_bad_recordings_and_settings_are_named(tmp_path: Path, classifier: Counting) -> None:
    short = tmp_path / "short.wav"
    soundfile.write(short, clip(CALM)[:399], 16_000)
    with pytest.raises(AudioError, match=r"short\.wav: 399 samples"):
        segment_file(short, classifier)
    with pytest.raises(AudioError, match=r"no\.wav: No such file"):
        segment_file(tmp_path / "no.wav", classifier)
    with pytest.raises(AudioError, match="not finite"):
        segment_samples(np.full(16_000, np.nan, np.float32), classifier)
    for bad in ({"hop": 0.0}, {"smooth": 2}, {"threshold": 1.5}):
        with pytest.raises(AudioError, match=next(iter(bad))):
            SegmentSettings(**bad)  # type: ignore[arg-type]
