"""The min-max normalisation, against the formula written out, and the key of a store."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ser_embed.encoders.postprocess import Norm, denormalise, normalise
from ser_embed.store.settings import FeatureSettings

SETTINGS = FeatureSettings(
    encoder="mini", weights="a" * 64, layer=4, pool="none", norm="frame", trim=True, seconds=3.0,
    fill="sample", dtype="float16", precision="fp32", seed=0,
)  # fmt: skip
OTHER: dict[str, Any] = {
    "encoder": "facebook/wav2vec2-base", "weights": "b" * 64, "layer": "all", "pool": "mean",
    "norm": "clip", "trim": False, "seconds": 2.0, "fill": "repeat", "dtype": "float32",
    "precision": "bf16", "seed": 1, "resampler": "other", "schema": SETTINGS.schema + 1,
}  # fmt: skip


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


# --- settings --------------------------------------------------------------------------------


def test_the_fields_that_vary_below_are_all_there_are() -> None:
    assert set(OTHER) == {field.name for field in fields(FeatureSettings)}
    assert all(getattr(SETTINGS, name) != value for name, value in OTHER.items())


@pytest.mark.parametrize("name", [name for name in OTHER if name != "encoder"])
def test_every_setting_changes_the_key_and_is_named(name: str) -> None:
    other = replace(SETTINGS, **{name: OTHER[name]})
    assert other.key != SETTINGS.key
    mine, theirs = getattr(SETTINGS, name), OTHER[name]
    assert SETTINGS.differences(other) == [f"{name}: {mine!r} against {theirs!r}"]


def test_what_an_encoder_is_called_does_not_matter() -> None:
    other = replace(SETTINGS, encoder=OTHER["encoder"])
    assert other.key == SETTINGS.key
    assert SETTINGS.differences(other) == []


def test_several_differences_are_all_named() -> None:
    other = replace(SETTINGS, layer=5, dtype="float32")
    assert SETTINGS.differences(other) == [
        "layer: 4 against 5",
        "dtype: 'float16' against 'float32'",
    ]


def test_keys_are_the_same_in_every_process_and_version() -> None:
    """A golden value: a change here orphans every store there is, so raise SCHEMA instead."""
    settings = replace(SETTINGS, resampler="torchaudio.sinc_interp_hann.v1", schema=2)
    assert settings.key == "a3656bff9d6e"
    assert len({replace(SETTINGS, seed=seed).key for seed in range(200)}) == 200


def test_whole_seconds_have_one_key_however_they_are_written() -> None:
    assert replace(SETTINGS, seconds=3).key == SETTINGS.key
