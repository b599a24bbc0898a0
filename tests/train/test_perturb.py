"""Masks and mixup: what changes, what doesn't, and that training still resumes to the bit."""

import json
from pathlib import Path

import pytest
import torch
from stores import SETTINGS, write_store

from ser_embed.heads.checkpoint import read_card
from ser_embed.train import stage as train
from ser_embed.train.perturb import mask, mix


def batch_of(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) + 3


def spans(hidden: torch.Tensor) -> int:
    """Count the runs of True in a vector."""
    padded = torch.cat([torch.tensor([False]), hidden])
    return int((padded[1:] & ~padded[:-1]).sum())


def test_without_a_share_nothing_is_done() -> None:
    batch = batch_of(4, 9, 5)
    assert mask(batch, torch.full((4,), 9), 0.0) is batch
    targets = torch.eye(4)
    assert mix(batch, targets, torch.full((4,), 9), 0.0)[0] is batch


@pytest.mark.parametrize("shape", [(64, 40, 12), (64, 3, 40, 12)])
def test_one_span_of_frames_and_one_band_become_the_mean(shape: tuple[int, ...]) -> None:
    batch, frames = batch_of(*shape), torch.full((64,), 40)
    frames[:8] = 10
    for row, n in enumerate(frames):
        batch[row, ..., n:, :] = 0
    with torch.random.fork_rng():
        torch.manual_seed(1)
        masked = mask(batch, frames, 0.3)
    assert masked.shape == batch.shape
    changed = masked != batch
    own = torch.arange(40) < frames[:, None]
    flat = batch.flatten(1, -3) if batch.dim() == 4 else batch.unsqueeze(1)
    means = torch.stack([
        torch.cat([clip[layer, :n] for clip, n in zip(flat, frames, strict=True)]).mean(0)
        for layer in range(flat.shape[1])
    ])  # fmt: skip
    changed = changed.unsqueeze(1) if changed.dim() == 3 else changed
    told = masked.unsqueeze(1) if masked.dim() == 3 else masked
    shares = []
    for row in range(64):
        assert torch.equal(changed[row, 0], changed[row, -1])  # alike in every layer
        hidden = changed[row, 0]
        assert not hidden[~own[row]].any()  # what lies behind a clip isn't its own
        times = hidden[own[row]].all(1)
        bands = hidden[own[row]].all(0)
        assert spans(times) <= 1
        assert spans(bands) <= 1
        assert torch.equal(hidden[own[row]], times[:, None] | bands[None])
        assert times.sum() <= 0.3 * frames[row] + 1
        assert bands.sum() <= 0.3 * 12 + 1
        shares.append(float(times.float().mean()))
        for layer in range(len(means)):
            wanted = means[layer].expand(40, -1)[hidden]
            torch.testing.assert_close(told[row, layer][hidden], wanted, atol=1e-4, rtol=1e-4)
    assert 0.05 < sum(shares) / 64 < 0.25  # widths are drawn from 0 to the share
    assert len(set(shares)) > 5


def test_pooled_features_are_masked_by_band_alone() -> None:
    batch = batch_of(16, 3, 20)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        masked = mask(batch, torch.tensor([149, 2] * 8), 0.5, pooled=True)
    changed = masked != batch
    assert torch.equal(changed[:, 0], changed[:, 2])
    torch.testing.assert_close(masked[changed], batch.mean(0).expand(16, 3, 20)[changed])
    assert 0 < changed.float().mean() < 0.5


def test_a_masked_training_is_told_resumed_and_another_one(tmp_path: Path) -> None:
    write_store(tmp_path, shape=(12, 8), n_speakers=6, per_emotion=3, noise=2)

    def trained(name: str, **more: object) -> Path:
        config = train.TrainConfig(
            features_dir=tmp_path, runs_dir=tmp_path / "runs", name=name, head="temporal",
            epochs=3, json=True, quiet=True, **more,  # type: ignore[arg-type]
        )  # fmt: skip
        return Path(train.train(config).result["run"])

    first, again, plain = trained("a", mask=0.3), trained("b", mask=0.3), trained("c")
    weights = [(run / "head.safetensors").read_bytes() for run in (first, again, plain)]
    assert weights[0] == weights[1] != weights[2]
    assert read_card(first)["training"]["mask"] == 0.3
    assert "--mask 0.3" in json.loads((first / "card.json").read_text())["command"]
    assert SETTINGS.pool == "none"


@pytest.mark.parametrize(("value", "message"), [("1", "less than 1"), ("-0.1", "at least 0")])
def test_a_share_that_leaves_nothing_is_refused(
    value: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_store(tmp_path)
    assert train.main(["--features-dir", str(tmp_path), "--mask", value]) == 1
    assert message in capsys.readouterr().err
