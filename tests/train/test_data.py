"""Stores to one table and its features: joined, labelled, in memory or from disk alike."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stores import EMOTIONS, SETTINGS, load, write_store

from ser_embed.corpora.labels import SCHEMES, LabelScheme
from ser_embed.errors import LabelError, StoreError
from ser_embed.splits import audit, make_splits
from ser_embed.store.reader import FeatureStore
from ser_embed.train import data
from ser_embed.train.data import Features, LabelledClips, load_clips, open_stores

# --- opening ---------------------------------------------------------------------------------


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match=f"no feature store in {tmp_path}: make one with .*extract"
    ):
        open_stores((), tmp_path)
    with pytest.raises(StoreError, match="no feature store"):
        open_stores((), tmp_path / "nowhere")


def test_every_store_of_the_folder_or_those_named(tmp_path: Path) -> None:
    paths = [write_store(tmp_path, corpus, n_speakers=1) for corpus in ("ravdess", "tess")]
    assert [store.path for store in open_stores((), tmp_path)] == paths
    assert [store.path for store in open_stores(paths[1:], tmp_path)] == paths[1:]


def test_a_store_named_twice_is_one(tmp_path: Path) -> None:
    path = write_store(tmp_path, n_speakers=1)
    assert len(open_stores([path, path], tmp_path)) == 1


@pytest.mark.parametrize("text", [None, "not HDF5"])
def test_a_file_that_is_no_store_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "x.h5"
    if text:
        path.write_text(text)
    with pytest.raises(StoreError, match=r"x\.h5"):
        open_stores([path], tmp_path)


def test_demo_clips_step_back_beside_real_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    real = write_store(tmp_path, "ravdess", n_speakers=1)
    demo = write_store(tmp_path, "demo", n_speakers=1, demo=True)
    with caplog.at_level(logging.INFO):
        assert [store.path for store in open_stores((), tmp_path)] == [real]
    assert f"{demo} is the synthetic demo corpus: left out" in caplog.text
    with pytest.raises(StoreError, match=r"synthetic demo corpus, the other real.*never mixed"):
        open_stores([real, demo], tmp_path)
    real.unlink()
    assert [store.path for store in open_stores((), tmp_path)] == [demo]


@pytest.mark.parametrize(
    ("field", "value"),
    [("weights", "b" * 64), ("layer", 5), ("norm", "clip"), ("seconds", 2.0), ("fill", "zero"),
     ("dtype", "float32"), ("precision", "bf16"), ("seed", 1)],
)  # fmt: skip
def test_stores_that_disagree_name_the_field_and_who_belongs_together(
    tmp_path: Path, field: str, value: Any
) -> None:
    changed: dict[str, Any] = {field: value}
    one = write_store(tmp_path, "ravdess", n_speakers=1)
    other = write_store(tmp_path, "tess", settings=replace(SETTINGS, **changed), n_speakers=1)
    third = write_store(tmp_path, "urdu", n_speakers=1)
    with pytest.raises(StoreError) as caught:
        open_stores((), tmp_path)
    message = str(caught.value)
    assert f"{field}: {getattr(SETTINGS, field)!r} against {value!r}" in message
    assert f"{one} {third}" in message
    assert str(other) in message.splitlines()[-1]


def test_the_encoders_name_alone_is_no_disagreement(tmp_path: Path) -> None:
    """The same weights by hub id and by folder."""
    write_store(tmp_path, "ravdess", n_speakers=1)
    write_store(tmp_path, "tess", settings=replace(SETTINGS, encoder="/a/folder"), n_speakers=1)
    assert len(open_stores((), tmp_path)) == 2


# --- the table -------------------------------------------------------------------------------


def test_the_table_is_the_usable_clips_of_all_stores(tmp_path: Path) -> None:
    clips = load(
        write_store(tmp_path, "ravdess", failed=2), write_store(tmp_path, "tess", n_speakers=2)
    )
    table = clips.table
    assert len(table) == 4 * 6 + 2 * 6
    assert table["corpus"].value_counts().to_dict() == {"ravdess": 24, "tess": 12}
    labels = {"happy": 0, "neutral": 1, "sad": 2}  # positive, neutral, negative
    assert table["label"].tolist() == [labels[emotion] for emotion in table["emotion"]]
    assert clips.classes == ("positive", "neutral", "negative")
    assert (clips.settings, clips.trained, clips.demo) == (SETTINGS, True, False)
    assert clips.left_out == {}


def test_a_scheme_leaves_clips_out_and_counts_them(tmp_path: Path) -> None:
    path = write_store(tmp_path)
    clips = load(
        path, scheme=LabelScheme("two", ("a", "b"), {"happy": "a", "sad": "b", "neutral": None})
    )
    assert clips.left_out == {"neutral": 8}
    assert set(clips.table["emotion"]) == {"happy", "sad"}
    store = FeatureStore(path)
    by_path = {row.path: i for i, row in enumerate(store.rows)}
    for i, name in enumerate(clips.table["path"]):  # the features went with their clips
        features, _ = clips.features.batch(torch.tensor([i]))
        np.testing.assert_array_equal(features[0], store.read([by_path[name]])[0])


def test_a_scheme_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    nothing = LabelScheme("no", ("a", "b"), dict.fromkeys(EMOTIONS))
    with pytest.raises(StoreError, match="'no' leaves out every clip"):
        load(write_store(tmp_path), scheme=nothing)


def test_item_10_an_emotion_that_the_scheme_lacks_is_left_out_and_counted(tmp_path: Path) -> None:
    path = write_store(tmp_path, emotions=("happy", "smug", "sad"))
    assert load(path).left_out == {"smug": 8}
    mapping = LabelScheme("mine", ("a", "b"), {"happy": "a", "sad": "b"})
    with pytest.raises(LabelError, match=r"'smug' \(8 clips\)"):
        load(path, scheme=mapping)


def test_a_scheme_that_leaves_nothing_names_the_words(tmp_path: Path) -> None:
    path = write_store(tmp_path, emotions=("smug", "wry"))
    with pytest.raises(StoreError, match=r"no class for 'smug', 'wry'\. Give a mapping.*own"):
        load(path)


def test_item_22_one_class_that_is_left_is_named_with_the_words_that_have_none(
    tmp_path: Path,
) -> None:
    path = write_store(tmp_path, emotions=("happy", "smug", "wry"))
    with pytest.raises(LabelError, match=r"all 8 clips are positive .*no class for 'smug', 'wry';"):
        load(path)


def test_item_1_people_of_a_store_made_before_are_todays(tmp_path: Path) -> None:
    """Its speech and its song had other speakers, who are the same actors."""
    clips = load(write_store(tmp_path, "ravdess"), write_store(tmp_path, "ravdess-song"))
    assert set(clips.table["speaker"]) == {f"ravdess:{n:02}" for n in range(4)}
    (split,) = make_splits("speaker", clips.table, clips.classes, 0)
    assert audit(split, clips.table)["shared_speakers"] == 0


def test_item_5_two_ranges_of_a_file_are_two_clips(tmp_path: Path) -> None:
    clips = load(write_store(tmp_path))
    one = clips.table.assign(sha256="0" * 64, path="dialogue.wav", recording="x:dialogue")
    starts = np.arange(len(one)) * 2.5
    ranges = replace(clips, table=one.assign(start=starts, end=starts + 2.5))
    other = replace(clips, table=one.assign(start=starts + 1, end=starts + 2.5))
    assert len(set(ranges._identities(ranges.table))) == len(one)
    assert ranges.digest != other.digest
    again = replace(clips, table=ranges.table.copy())
    assert again.digest == ranges.digest


# --- the features ----------------------------------------------------------------------------


def stores_of_three_lengths(folder: Path) -> list[FeatureStore]:
    lengths = {"ravdess": 8, "tess": 5, "urdu": 11}
    return [
        FeatureStore(write_store(folder, corpus, shape=(n, 6), n_speakers=2))
        for corpus, n in lengths.items()
    ]


def test_stores_of_different_lengths_are_padded_to_the_longest(tmp_path: Path) -> None:
    stores = stores_of_three_lengths(tmp_path)
    clips = load_clips(stores, SCHEMES["sentiment3"])
    assert clips.features.shape == (11, 6)
    batch, frames = clips.features.batch(torch.arange(36))
    assert batch.shape == (36, 11, 6)
    assert batch.dtype == torch.float32
    assert frames.dtype == torch.int64
    assert sorted(set(frames.tolist())) == [3, 5, 6, 8, 9, 11]
    for i, row in clips.table.iterrows():
        store = next(s for s in stores if s.corpus == row["corpus"])
        number = [r.path for r in store.rows].index(row["path"])
        n = int(frames[i])
        assert n == store.frames[number]
        np.testing.assert_array_equal(batch[i, :n], store.read([number])[0][:n])
        assert not batch[i, n:].any()


def test_in_memory_equals_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stores = stores_of_three_lengths(tmp_path)
    in_memory = load_clips(stores, SCHEMES["sentiment3"]).features
    monkeypatch.setattr(data, "MEMORY_SHARE", 0)
    with caplog.at_level(logging.INFO):
        on_disk = load_clips(stores, SCHEMES["sentiment3"]).features
    assert "read from disk batch by batch" in caplog.text
    for store in stores:
        store.close()  # it opens again when it is needed
    order = torch.randperm(36, generator=torch.Generator().manual_seed(0))
    for rows in order.split(7):
        for one, other in zip(in_memory.batch(rows), on_disk.batch(rows), strict=True):
            assert torch.equal(one, other)
            assert one.dtype == other.dtype
    for store in stores:  # what is in memory needs no file
        store.path.unlink()
        store.close()
    assert in_memory.batch(order)[0].shape == (36, 11, 6)


def test_features_take_clips_in_any_order(tmp_path: Path) -> None:
    stores = stores_of_three_lengths(tmp_path)
    members = np.array([(2, 3), (0, 1), (2, 0), (1, 4)])
    features = Features(stores, members)
    batch, frames = features.batch(torch.tensor([1, 3, 0]))
    for i, (which, row) in enumerate([(0, 1), (1, 4), (2, 3)]):
        own = stores[which].read([row])[0]
        np.testing.assert_array_equal(batch[i, : len(own)], own)
        assert frames[i] == stores[which].frames[row]


@pytest.mark.parametrize(
    ("layer", "pool", "shape"),
    [("all", "none", (3, 8, 6)), ("all", "mean", (3, 6)), (4, "mean", (1, 6))],
)
def test_features_of_all_layers_and_pooled(
    tmp_path: Path, layer: Any, pool: Any, shape: tuple[int, ...]
) -> None:
    path = write_store(tmp_path, settings=replace(SETTINGS, layer=layer, pool=pool), shape=shape)
    clips = load(path)
    assert clips.features.shape == shape
    batch, _ = clips.features.batch(torch.tensor([0, 5]))
    np.testing.assert_array_equal(batch, FeatureStore(path).read([0, 5]))


# --- the digest ------------------------------------------------------------------------------


def test_the_digest_is_that_of_the_data_alone(tmp_path: Path) -> None:
    first = load(write_store(tmp_path / "a")).digest
    assert len(first) == 64
    assert load(write_store(tmp_path / "b")).digest == first


def negative_is_neutral(folder: Path) -> LabelledClips:
    mapping: dict[str, str | None] = {"happy": "positive", "neutral": "neutral", "sad": "neutral"}
    scheme = LabelScheme("other", SCHEMES["sentiment3"].classes, mapping)
    return load(write_store(folder), scheme=scheme)


@pytest.mark.parametrize(
    "change",
    [
        negative_is_neutral,
        lambda folder: load(write_store(folder, n_speakers=5)),
        lambda folder: load(write_store(folder, text="other bytes")),
        lambda folder: load(write_store(folder, noise=0.9)),
        lambda folder: load(write_store(folder, settings=replace(SETTINGS, seed=1))),
        lambda folder: load(write_store(folder, "tess")),
        lambda folder: load(write_store(folder), write_store(folder, "tess", n_speakers=1)),
    ],
    ids=["labels", "clips", "bytes", "features", "settings", "corpus", "stores"],
)  # fmt: skip
def test_the_digest_changes_with_the_data(
    tmp_path: Path, change: Callable[[Path], LabelledClips]
) -> None:
    assert change(tmp_path / "b").digest != load(write_store(tmp_path / "a")).digest
