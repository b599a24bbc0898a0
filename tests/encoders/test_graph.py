"""What is done to waveforms and hidden states, against the formulas written out."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ser_embed.encoders.frozen import Encoder, denormalise, normalise
from ser_embed.encoders.graph import Graph, pool_states, scale_states, unit_variance
from ser_embed.encoders.registry import Norm


def states(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(2, 5, shape).astype(np.float32)


def by_hand(clip: np.ndarray, norm: Norm) -> np.ndarray:
    """2 (F - min) / (max - min) - 1 value by value in Python's floats, for (T, D)."""
    rows = [[float(value) for value in frame] for frame in clip]
    everything = [value for frame in rows for value in frame]
    scaled = []
    for frame in rows:
        low = min(frame) if norm == "frame" else min(everything)
        high = max(frame) if norm == "frame" else max(everything)
        scaled.append([2 * (value - low) / (high - low) - 1 for value in frame])
    return np.array(scaled)


# --- normalise -------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["frame", "clip"])
def test_normalise_is_the_reference_formula(norm: Norm) -> None:
    clip = states(11, 7)
    features, extrema = normalise(clip, norm)
    np.testing.assert_allclose(features, by_hand(clip, norm), atol=1e-6)
    assert features.dtype == extrema.dtype == np.float32
    assert features.shape == (11, 7)
    assert extrema.shape == (11, 2)


def test_every_layer_is_normalised_by_itself() -> None:
    clip = states(3, 11, 7) * np.array([1, 100, 0.01], dtype=np.float32)[:, None, None]
    for norm in ("frame", "clip"):
        features, extrema = normalise(clip, norm)
        assert extrema.shape == (3, 11, 2)
        for layer in range(3):
            np.testing.assert_allclose(features[layer], by_hand(clip[layer], norm), atol=1e-6)


def test_each_frame_spans_the_whole_range() -> None:
    features, extrema = normalise(states(3, 20, 16), "frame")
    assert (features.min(axis=-1) == -1).all()
    assert (features.max(axis=-1) == 1).all()
    np.testing.assert_array_equal(extrema[..., 0], states(3, 20, 16).min(axis=-1))
    np.testing.assert_array_equal(extrema[..., 1], states(3, 20, 16).max(axis=-1))


def test_a_clip_spans_the_whole_range_but_its_frames_do_not() -> None:
    features, extrema = normalise(states(20, 16), "clip")
    assert features.min() == -1
    assert features.max() == 1
    assert (features.max(axis=-1) < 1).sum() == 19
    assert len(np.unique(extrema[:, 0])) == len(np.unique(extrema[:, 1])) == 1


def test_none_leaves_the_states_alone() -> None:
    clip = states(4, 6)
    features, extrema = normalise(clip, "none")
    np.testing.assert_array_equal(features, clip)
    assert extrema.size == 0


def test_a_constant_frame_becomes_zeros() -> None:
    clip = states(5, 8)
    clip[2] = -3.5
    features, extrema = normalise(clip, "frame")
    assert (features[2] == 0).all()
    assert extrema[2].tolist() == [-3.5, -3.5]
    assert features[1].any()
    np.testing.assert_allclose(denormalise(features, extrema), clip, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", ["frame", "clip"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_visible(norm: Norm, bad: float) -> None:
    """An encoder that overflows must be found out, not stored as zeros."""
    clip = states(4, 6)
    clip[1, 2] = bad
    with np.errstate(invalid="ignore"):
        features, _ = normalise(clip, norm)
    assert not np.isfinite(features[1]).all()
    if norm == "frame":
        assert np.isfinite(features[[0, 2, 3]]).all()


# --- denormalise -----------------------------------------------------------------------------

values = st.floats(-1e3, 1e3, width=32)
clips = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=3), elements=values)


@given(clip=clips, norm=st.sampled_from(["frame", "clip"]))
def test_denormalise_undoes_normalise(clip: np.ndarray, norm: Norm) -> None:
    features, extrema = normalise(clip, norm)
    assert features.shape == clip.shape
    assert np.abs(features).max() <= 1
    scale = np.abs(extrema).max(axis=-1, keepdims=True)
    assert (np.abs(denormalise(features, extrema) - clip) <= 1e-5 * scale + 1e-30).all()


@given(clip=clips, norm=st.sampled_from(["frame", "clip"]))
def test_in_float16_it_is_undone_within_its_rounding(clip: np.ndarray, norm: Norm) -> None:
    features, extrema = normalise(clip, norm)
    restored = denormalise(features.astype(np.float16), extrema)
    # Half a unit in the last place of a float16 under 1 is 2^-12; that is scaled by half the
    # extent. The rest is float32's rounding of the sum.
    extent = extrema[..., 1:] - extrema[..., :1]
    scale = np.abs(extrema).max(axis=-1, keepdims=True)
    assert (np.abs(restored - clip) <= extent / 2 * 2.0**-12 * 1.01 + 1e-6 * scale + 1e-30).all()


# --- in batches ------------------------------------------------------------------------------


def in_numpy(states: np.ndarray, norm: str, pool: str) -> np.ndarray:
    axes = {"frame": (-1,), "clip": (-2, -1)}
    if norm != "none":
        low, high = states.min(axes[norm], keepdims=True), states.max(axes[norm], keepdims=True)
        extent = np.where(high == low, 1, high - low)
        states = np.where(high == low, 0, 2 * (states - low) / extent - 1)
    parts = {"none": [states], "mean": [states.mean(-2)],
             "stats": [states.mean(-2), states.std(-2)]}  # fmt: skip
    return np.concatenate(parts[pool], axis=-1)


@pytest.mark.parametrize("norm", ["frame", "clip", "none"])
@pytest.mark.parametrize("pool", ["none", "mean", "stats"])
def test_batches_are_normalised_and_pooled_as_numpy_would(norm: Any, pool: Any) -> None:
    states = np.random.default_rng(0).normal(1, 3, (2, 3, 17, 8)).astype(np.float32)
    states[0, 1, 4] = 2.5  # a frame whose values are all equal
    states[1, 2] = -1.0  # a layer whose values are
    given = pool_states(scale_states(torch.from_numpy(states), norm)[0], pool).numpy()
    wanted = in_numpy(states, norm, pool)
    assert given.shape == wanted.shape
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, wanted, rtol=1e-6, atol=1e-6)


def test_what_is_not_finite_stays_to_be_found() -> None:
    states = torch.zeros(1, 1, 3, 4)
    states[0, 0, 1, 2] = torch.nan
    wanted = {"frame": [False, True, False], "clip": [True] * 3, "none": [False, True, False]}
    for norm, frames in wanted.items():
        assert scale_states(states, norm)[0].isnan().any(-1).flatten().tolist() == frames


def test_clips_are_scaled_as_transformers_does() -> None:
    rng = np.random.default_rng(0)
    clips = [rng.normal(mean, scale, 5000).astype(np.float32)
             for mean, scale in ((0, 1), (0.3, 0.01), (-2, 5))]  # fmt: skip
    wanted = transformers.Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm(clips, None)
    given = unit_variance(torch.from_numpy(np.stack(clips))).numpy()
    np.testing.assert_allclose(given, np.stack(wanted), atol=1e-5)
    batch, mask = Encoder.batch(clips, True)
    assert mask is None
    np.testing.assert_allclose(batch, np.stack(wanted), atol=1e-5)


def test_shorter_clips_of_a_batch_are_padded_and_masked() -> None:
    clips = [np.full(5, 2, dtype=np.float32), np.arange(3, dtype=np.float32)]
    batch, mask = Encoder.batch(clips, False)
    np.testing.assert_array_equal(batch, [[2, 2, 2, 2, 2], [0, 1, 2, 0, 0]])
    np.testing.assert_array_equal(mask, [[True] * 5, [True] * 3 + [False] * 2])
    scaled, _ = Encoder.batch(clips, True)
    np.testing.assert_allclose(scaled[1], [-1.2247448, 0, 1.2247448, 0, 0], atol=1e-5)


def test_calibration_is_a_softmax_at_a_temperature() -> None:
    log_probs = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
    wanted = np.array([0.7, 0.2, 0.1]) ** (1 / 2.5)
    np.testing.assert_allclose(
        Graph.calibrated(log_probs, 2.5)[0].numpy(), wanted / wanted.sum(), rtol=1e-6
    )
