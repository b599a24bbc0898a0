"""The search: the given settings first, kept trial by trial, blind to the test part."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import load, write_store

from ser_embed.heads.checkpoint import load_head, read_card
from ser_embed.splits.rules import make_splits
from ser_embed.train.__main__ import main as train_main
from ser_embed.train.data import Features
from ser_embed.train.loop import EarlyStopping, FitSettings
from ser_embed.train.search import SEARCHED, search_head, search_settings

pytest.importorskip("optuna")
GIVEN = {"lr": 1e-3, "dropout": 0.3, "weight_decay": 0.01, "batch_size": 32}


def bowl(told: Mapping[str, Any]) -> float:
    """Best at a learning rate of 3e-3 and a dropout of 0.5."""
    return -abs(np.log10(told["lr"] / 3e-3)) - abs(told["dropout"] - 0.5)


def test_the_given_settings_are_tried_first_and_better_ones_found(tmp_path: Path) -> None:
    tried: list[dict[str, Any]] = []

    def judge(told: Mapping[str, Any]) -> float:
        tried.append(dict(told))
        return float(bowl(told))

    found = search_settings(judge, GIVEN, 25, tmp_path, 0)
    assert tried[0] == GIVEN
    assert len(tried) == found["trials"] == 25
    assert found["first_val_uar"] == pytest.approx(bowl(GIVEN))
    assert found["val_uar"] == pytest.approx(max(map(bowl, tried)))
    assert found["val_uar"] > found["first_val_uar"] + 0.2
    assert {name: found[name] for name in SEARCHED} in tried


def test_an_interrupted_search_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole = search_settings(lambda told: float(bowl(told)), GIVEN, 14, tmp_path / "whole", 3)
    calls = 0

    def stops(told: Mapping[str, Any]) -> float:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return float(bowl(told))

    with pytest.raises(KeyboardInterrupt):
        search_settings(stops, GIVEN, 14, tmp_path / "cut", 3)
    assert search_settings(stops, GIVEN, 14, tmp_path / "cut", 3) == whole
    assert calls == 6 + 14 - 5
    # And what is finished is not tried again.
    assert search_settings(stops, GIVEN, 14, tmp_path / "cut", 3) == whole
    assert calls == 6 + 14 - 5


def test_settings_beyond_the_usual_bounds_can_be_given(tmp_path: Path) -> None:
    given = {**GIVEN, "lr": 0.05, "weight_decay": 0.0, "batch_size": 7}
    tried: list[dict[str, Any]] = []

    def judge(told: Mapping[str, Any]) -> float:
        tried.append(dict(told))
        return 0.0

    search_settings(judge, given, 2, tmp_path, 0)
    assert tried[0] == {**given, "weight_decay": 1e-5}


class Watched(Features):
    """Features that note which rows are asked for."""

    def __init__(self, features: Features) -> None:
        self.__dict__.update(features.__dict__)
        self.asked: set[int] = set()

    def batch(self, rows: Any) -> Any:
        self.asked |= set(rows.tolist())
        return super().batch(rows)


def test_the_test_part_is_never_looked_at(tmp_path: Path) -> None:
    clips = load(write_store(tmp_path, shape=(12, 8), n_speakers=8, per_emotion=2, noise=2))
    watched = Watched(clips.features)
    object.__setattr__(clips, "features", watched)
    (split,) = make_splits("speaker", clips.table, clips.classes, 0)
    settings = FitSettings(3, 16, 1e-3, 0.01, "adamw", EarlyStopping(), 0)
    found = search_head(clips, split, settings, "balanced", {"name": "mlp", "pooled": False}, 2,
                        tmp_path / "s")  # fmt: skip
    assert 0 <= found["first_val_uar"] <= found["val_uar"] <= 1
    assert watched.asked
    assert not watched.asked & set(split.test.tolist())


def test_train_searches_each_fold_and_trains_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_store(tmp_path, shape=(12, 8), n_speakers=6, per_emotion=3, noise=2)
    args = [
        "--features-dir", tmp_path, "--runs-dir", tmp_path / "runs", "--head", "mlp",
        "--epochs", 3, "--early-stop", "--split", "kfold", "--search", 3, "--name", "s", "--quiet",
    ]  # fmt: skip
    assert train_main([*map(str, args)]) == 0
    cards = [read_card(path.parent) for path in sorted((tmp_path / "runs/s").glob("*/card.json"))]
    assert len(cards) == 5
    for card in cards:
        told = card["training"]["search"]
        assert told["trials"] == 3
        for name in set(SEARCHED) - {"dropout"}:
            assert card["training"][name] == told[name]
    assert len({card["training"]["search"]["lr"] for card in cards}) > 1 or any(
        card["training"]["search"]["lr"] == 1e-3 for card in cards
    )
    load_head(next((tmp_path / "runs/s").glob("*/card.json")).parent)
    assert train_main([*map(str, args), "--search", "-1"]) == 1
    assert "--search -1: at least 0" in capsys.readouterr().err
