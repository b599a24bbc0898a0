"""A head that is trained on an encoder as it is, before both are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_endtoend import tiny_encoder

from ser_embed.corpora.labels import LabelScheme
from ser_embed.corpora.listing import Listing, listing_of
from ser_embed.extract.encoding import spread
from ser_embed.finetune.network import Network, build_network
from ser_embed.finetune.recordings import Recordings
from ser_embed.finetune.tuning import probe
from ser_embed.reports.scores import confusion, uar_of
from ser_embed.splits.rules import Split, make_splits
from ser_embed.store.settings import FeatureSettings


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("probe"))


@pytest.fixture(scope="module")
def clips() -> Recordings:
    listing = listing_of(None, "demo", None)
    some = Listing(listing.corpus, listing.root, spread(listing.utterances, 60), ())
    settings = FeatureSettings(
        encoder="tiny", weights="", layer=2, pool="mean", norm="none", trim=True, seconds=1.0,
        fill="none", dtype="float32", precision="fp32", seed=0,
    )  # fmt: skip
    return Recordings.read(some, LabelScheme.load("sentiment3"), settings, True, 0, True)


@pytest.fixture(scope="module")
def split(clips: Recordings) -> Split:
    return make_splits("random", clips.table, clips.classes, 0)[0]


def _weights(network: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.module.state_dict().items()}


@pytest.mark.parametrize("kind", ["mlp", "stats"])
def test_the_head_learns_and_the_encoder_stays(kind: Any, clips: Recordings, split: Split) -> None:
    network = build_network(kind, "mini", clips.classes, 0.3, seed=0)
    before = _weights(network)
    told = probe(network, clips, split, np.ones(3), batch_size=7, seed=0)
    after = _weights(network)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("head.") for name in moved)
    # The whole network, from the waveform on, is now what the probe was.
    labels = clips.table["label"].to_numpy()[split.val]
    predicted = clips.by_network(network, split.val, 5).argmax(1)
    assert uar_of(confusion(labels, predicted, 3)) == pytest.approx(told["val_uar"])
    assert told["val_uar"] > 0.4
    assert 1 <= told["kept"] <= told["epochs"]


def test_equal_seeds_give_equal_heads(encoder: Path, clips: Recordings, split: Split) -> None:
    heads = []
    for seed in (0, 0, 1):
        network = build_network("stats", str(encoder), clips.classes, 0.3, seed=0)
        probe(network, clips, split, np.ones(3), batch_size=16, seed=seed)
        heads.append(_weights(network)["head.output.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_test_clips_change_nothing(encoder: Path, clips: Recordings, split: Split) -> None:
    told = []
    for test in (split.test, split.test[:1]):
        network = build_network("mlp", str(encoder), clips.classes, 0.3, seed=0)
        some = Split(split.name, split.train, split.val, test)
        told.append(probe(network, clips, some, np.ones(3), batch_size=16, seed=0))
    assert told[0] == told[1]
