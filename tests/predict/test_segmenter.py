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
from ser_embed.predict.options import SegmentSettings
from ser_embed.predict.recording import PEAK_SECONDS, Recording
from ser_embed.predict.segmenter import Segmenter, Windows
from ser_embed.predict.segments import Segment

NO_SPEECH, UNSURE = Segment.NO_SPEECH, Segment.UNSURE
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
def recording(classifier: Counting, dialogue: np.ndarray) -> Recording:
    return Recording.of_samples(dialogue, classifier)


def test_two_clips_are_two_segments_between_pauses(
    classifier: Counting, recording: Recording
) -> None:
    labels = [segment.label for segment in recording.segments]
    alone = [classifier.classify(clip(name)) for name in (CALM, ANGRY)]
    assert [p.label for p in alone] == ["neutral", "negative"], "the clips no longer differ"
    assert labels == [
        NO_SPEECH,
        "neutral",
        NO_SPEECH,
        "negative",
        NO_SPEECH,
    ]
    calm, angry = len(clip(CALM)) / 16_000, len(clip(ANGRY)) / 16_000
    true_edges = np.cumsum([1, calm, 1.5, angry])
    edges = [segment.end for segment in recording.segments[:-1]]
    np.testing.assert_allclose(edges, true_edges, atol=0.5)
    for segment, prediction in zip(recording.segments[1::2], alone, strict=True):
        assert segment.confidence == pytest.approx(prediction.confidence, abs=0.15)


def test_silero_finds_the_same_two_clips(
    classifier: Counting, dialogue: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "silero_vad")
    pytest.importorskip("silero_vad")
    labels = [segment.label for segment in Recording.of_samples(dialogue, classifier).segments]
    assert labels == [
        NO_SPEECH,
        "neutral",
        NO_SPEECH,
        "negative",
        NO_SPEECH,
    ]


def test_the_summary_is_the_mean_over_speech(recording: Recording) -> None:
    speech = [s for s in recording.segments if s.label != NO_SPEECH]
    weights = [s.end - s.start for s in speech]
    for name in recording.classes:
        mean = np.average([s.probabilities[name] for s in speech], weights=weights)
        assert recording.summary.probabilities[name] == pytest.approx(mean)
    assert (recording.summary.start, recording.summary.end) == (0, recording.seconds)


def test_the_envelope_is_the_loudest_sample(recording: Recording, dialogue: np.ndarray) -> None:
    n = round(PEAK_SECONDS * 16_000)
    expected = [np.abs(dialogue[i : i + n]).max() for i in range(0, len(dialogue), n)]
    np.testing.assert_array_equal(recording.peaks, np.array(expected, dtype=np.float32))


def test_a_file_is_like_its_samples(
    tmp_path: Path, classifier: Counting, dialogue: np.ndarray, recording: Recording
) -> None:
    path = tmp_path / "dialogue.wav"
    soundfile.write(path, dialogue, 16_000, subtype="FLOAT")
    done: list[float] = []
    assert (
        Recording.of_file(path, classifier, on_progress=done.append).segments == recording.segments
    )
    assert done == sorted(done)
    assert done[-1] == pytest.approx(recording.seconds)


def test_without_a_pause_the_label_changes_where_the_voice_does(classifier: Counting) -> None:
    calm, angry = np.tile(voice(CALM), 3), np.tile(voice(ANGRY), 3)
    segments = Recording.of_samples(np.concatenate([calm, angry]), classifier).segments
    known = [s for s in segments if s.label != UNSURE]
    assert [s.label for s in known] == ["neutral", "negative"]
    reach = 1.5 + 0.5  # half a window, and a hop by the smoothing
    assert known[0].end == pytest.approx(len(calm) / 16_000, abs=reach)
    assert known[1].start == pytest.approx(len(calm) / 16_000, abs=reach)


def test_a_threshold_makes_unsure_and_nothing_else(
    classifier: Counting, dialogue: np.ndarray, recording: Recording
) -> None:
    unsure = Recording.of_samples(dialogue, classifier, SegmentSettings(threshold=1.0))
    assert {s.label for s in unsure.segments} == {NO_SPEECH, UNSURE}
    for one, other in zip(unsure.pieces, recording.pieces, strict=True):
        assert (one.start, one.end) == (other.start, other.end)


def test_smoothing_is_a_moving_average(classifier: Counting) -> None:
    voice = np.concatenate([clip(CALM), clip(ANGRY), clip(CALM)])
    raw = Recording.of_samples(voice, classifier, SegmentSettings(smooth=1)).pieces
    smooth = Recording.of_samples(voice, classifier, SegmentSettings(smooth=5)).pieces
    assert len(raw) == len(smooth) > 5
    values = np.array([list(p.probabilities.values()) for p in raw])
    expected = [values[max(0, i - 2) : i + 3].mean(axis=0) for i in range(len(values))]
    np.testing.assert_allclose(
        [list(p.probabilities.values()) for p in smooth], expected, atol=1e-12
    )


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
            Recording.of_samples(samples, classifier)
        return
    chosen = SegmentSettings(hop=hop)
    whole = Recording.of_samples(samples, classifier, chosen)
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
    assert Segment.merge(pieces) == whole.segments


# --- windows -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "hop"), [(48_000, 8_000), (13_230, 3_087), (800, 2_000)])
def test_windows_are_the_streams_own_slices(length: int, hop: int) -> None:
    rng = np.random.default_rng(1)
    stream = rng.standard_normal(length + 5 * hop).astype(np.float32)
    windows, found, at = Windows(length, hop), [], 0
    while at < len(stream):
        n = int(rng.integers(1, hop))
        windows.push(stream[at : at + n])
        at += n
        found += filter(None, [windows.pop()])
    assert [start for start, _ in found] == [k * hop for k in range(6)]
    for start, samples in found:
        np.testing.assert_array_equal(samples, stream[start : start + length])
    assert windows.dropped == 0


def test_a_late_reader_gets_the_newest_window_and_memory_stays() -> None:
    windows, got = Windows(48_000, 8_000), 0
    block = np.ones(1600, dtype=np.float32)
    tracemalloc.start()
    for k in range(6000):  # ten minutes
        windows.push(block * k)
        if k % 1000 == 999:
            window = windows.pop()
            assert window is not None
            assert window[0] == (k + 1) * 1600 - 48_000, "it ends now"
            assert window[1][[0, -1]].tolist() == [k - 29, k]
            got += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got + windows.dropped == (600 - 3) * 2 + 1
    assert peak < 2e6, "3.5 s of float32 are 0.22 MB; ten minutes would be 38 MB"
    assert windows.pop() is None
    assert len(windows.newest(960_000)) == 3.5 * 16_000


def test_a_block_longer_than_a_window_leaves_its_end() -> None:
    windows = Windows(1000, 100)
    windows.push(np.arange(5000, dtype=np.float32))
    window = windows.pop()
    assert window is not None
    assert window[0] == 4000
    assert window[1].tolist() == list(range(4000, 5000))
    assert windows.dropped == 40


# --- live --------------------------------------------------------------------------------------


def live(segmenter: Segmenter, samples: np.ndarray, block: int = 8_000) -> list[Segment]:
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
    assert segmenter.push(pause(1))[-1].probabilities


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
    tracemalloc.start()
    live(segmenter, voice)
    before = tracemalloc.get_traced_memory()[0]
    found = []
    for _ in range(10):
        found += live(segmenter, voice)
    growth = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(found) > 50, "pieces come while the voice goes on"
    assert growth < 250_000, "ten times the voice would be 3 MB of float32"


# --- what can't be used ------------------------------------------------------------------------


def test_silence_is_one_segment(classifier: Counting) -> None:
    recording = Recording.of_samples(np.zeros(50_000, np.float32), classifier)
    assert [s.label for s in recording.segments] == [NO_SPEECH]
    assert recording.summary.label == NO_SPEECH
    assert recording.summary.confidence is None


def test_bad_recordings_and_settings_are_named(tmp_path: Path, classifier: Counting) -> None:
    short = tmp_path / "short.wav"
    soundfile.write(short, clip(CALM)[:399], 16_000)
    with pytest.raises(AudioError, match=r"short\.wav: 399 samples"):
        Recording.of_file(short, classifier)
    with pytest.raises(AudioError, match=r"no\.wav: No such file"):
        Recording.of_file(tmp_path / "no.wav", classifier)
    with pytest.raises(AudioError, match="not finite"):
        Recording.of_samples(np.full(16_000, np.nan, np.float32), classifier)
    for bad in ({"hop": 0.0}, {"smooth": 2}, {"threshold": 1.5}):
        with pytest.raises(AudioError, match=next(iter(bad))):
            SegmentSettings(**bad)  # type: ignore[arg-type]
