"""The settings of a store, and its key."""

from dataclasses import fields, replace
from typing import Any

import pytest

from ser_embed.store.settings import FeatureSettings

SETTINGS = FeatureSettings(
    encoder="mini", weights="a" * 64, layer=4, pool="none", norm="frame", trim=True, seconds=3.0,
    fill="sample", dtype="float16", precision="fp32", seed=0, configuration="c" * 64,
)  # fmt: skip
OTHER: dict[str, Any] = {
    "encoder": "facebook/wav2vec2-base", "weights": "b" * 64, "layer": "all", "pool": "mean",
    "norm": "clip", "trim": False, "seconds": 2.0, "fill": "repeat", "dtype": "float32",
    "precision": "bf16", "seed": 1, "resampler": "other", "schema": SETTINGS.schema + 1,
    "configuration": "d" * 64, "context": "30s",
}  # fmt: skip


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
    settings = replace(
        SETTINGS, resampler="torchaudio.sinc_interp_hann.v1", schema=2, configuration=""
    )
    assert settings.key == "a3656bff9d6e"
    assert len({replace(SETTINGS, seed=seed).key for seed in range(200)}) == 200


def test_whole_seconds_have_one_key_however_they_are_written() -> None:
    assert replace(SETTINGS, seconds=3).key == SETTINGS.key


def test_item_17_seed_and_fill_count_only_where_they_change_something() -> None:
    for fill in ("repeat", "zero", "none"):
        one = replace(SETTINGS, fill=fill)
        assert replace(one, seed=7).key == one.key
        assert one.differences(replace(one, seed=7)) == []
    whole = replace(SETTINGS, seconds=0.0)
    assert replace(whole, fill="zero", seed=3).key == whole.key
    assert whole.differences(replace(whole, fill="zero", seed=3)) == []
    assert replace(SETTINGS, seed=7).key != SETTINGS.key  # here the fill draws


def test_item_17_a_configuration_that_is_not_known_differs_from_none() -> None:
    """Stores and cards made before it was kept go on serving for training and evaluation."""
    before = replace(SETTINGS, configuration="")
    assert before.key != SETTINGS.key
    assert SETTINGS.differences(before) == before.differences(SETTINGS) == []
    assert before.differences(replace(SETTINGS, layer=5)) == ["layer: 4 against 5"]
