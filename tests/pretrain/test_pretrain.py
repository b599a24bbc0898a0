"""Pre-training on a tiny shape: it learns, resumes, and writes an encoder that loads."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from ser_embed.encoders.frozen import load_encoder
from ser_embed.errors import EncoderError, SerEmbedError
from ser_embed.pretrain.options import PretrainConfig
from ser_embed.pretrain.pretraining import LOSSES, pretrain_encoder


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of 20,000 parameters with wav2vec2's kernels and strides."""
    folder = tmp_path_factory.mktemp("shape")
    transformers.Wav2Vec2Config(
        conv_dim=[8] * 7, conv_bias=True, feat_extract_norm="layer", do_stable_layer_norm=True,
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4, hidden_dropout=0.0,
        attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0, layerdrop=0.0,
        mask_time_prob=0.05,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory, write_tone: Callable[..., Path]) -> Path:
    root = tmp_path_factory.mktemp("speech")
    for k in range(6):
        write_tone(root / f"free{k}.wav", seconds=1 + k / 2, f0=100 + 30 * k, seed=k)
        word = ("anger", "sadness")[k % 2]
        write_tone(root / f"AB1_{word}_{k}.wav", seconds=1.5, f0=120 + 150 * (k % 2), seed=k)
    return root


@pytest.fixture
def config(speech: Path, shape: Path, tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(
        (speech,), out=tmp_path / "encoder", shape=shape, labelled=("nemo",), steps=12,
        batch_size=4, seconds=1.0, save_every=4, quiet=True,
    )  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_every_task_is_learnt(config: PretrainConfig) -> None:
    outcome = pretrain_encoder(replace(config, steps=150, lr=5e-3, save_every=50))
    with (config.out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["50", "100", "150"]
    for name in LOSSES:
        # The first row is the mean of the first 50 steps, the last of the last 100.
        share = 0.97 if name == "units" else 0.9  # 128 clusters are many for 20,000 parameters
        assert float(rows[-1][name]) < share * float(rows[0][name]), name
    assert set(outcome.result["losses"]) == set(LOSSES)


def test_a_killed_run_ends_as_one_that_was_not(
    config: PretrainConfig, speech: Path, shape: Path, tmp_path: Path, project: Path
) -> None:
    whole = replace(config, steps=200, save_every=10)
    pretrain_encoder(whole)
    killed = tmp_path / "killed"
    command = [
        sys.executable, "-m", "ser_embed.pretrain", speech, "--out", killed, "--shape", shape,
        "--labelled", "nemo", "--steps", "200", "--batch-size", "4", "--seconds", "1",
        "--save-every", "10", "--quiet", "--json",
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=project, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while not (killed / "state.safetensors").exists():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            process.kill()
    assert not (killed / "model.safetensors").exists()
    done = subprocess.run(
        command, cwd=project, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["steps"] == 200
    assert result["bytes"] == (killed / "model.safetensors").stat().st_size
    expected = weights(whole.out)
    for name, tensor in weights(killed).items():
        assert torch.equal(tensor, expected[name]), name


def test_the_encoder_that_is_written_loads(config: PretrainConfig) -> None:
    outcome = pretrain_encoder(config)
    stored = weights(config.out)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert outcome.result["parameters"] == sum(tensor.numel() for tensor in stored.values())
    model = transformers.AutoModel.from_pretrained(config.out)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(config.out)
    assert extractor.do_normalize
    assert extractor.sampling_rate == 16_000
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.half(), stored[name]), name
    encoder = load_encoder(str(config.out))
    assert encoder.trained
    states = encoder.encode([np.sin(np.arange(16_000) / 20).astype(np.float32)])[0]
    assert states.shape == (1, 49, 32)


def test_it_goes_on_from_another_encoder(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain_encoder(config)
    still = replace(config, out=tmp_path / "still", init=config.out, steps=1, lr=0.0)
    pretrain_encoder(still)
    first = weights(config.out)
    for name, tensor in weights(still.out).items():
        assert torch.equal(tensor, first[name]), name


def test_a_longer_run_goes_on(config: PretrainConfig) -> None:
    """The state is that of a held learning rate, unless the run had begun to bring it down."""
    pretrain_encoder(config)
    outcome = pretrain_encoder(replace(config, steps=16))
    assert outcome.result["steps"] == 16
    with (config.out / "history.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["4", "8", "12", "16"]


def test_other_settings_are_refused(config: PretrainConfig) -> None:
    pretrain_encoder(config)
    with pytest.raises(EncoderError, match=r"made with other settings \(lr\).*another --out"):
        pretrain_encoder(replace(config, lr=0.5))


def test_a_damaged_state_is_named(config: PretrainConfig) -> None:
    config.out.mkdir()
    (config.out / "state.safetensors").write_bytes(b"nonsense")
    with pytest.raises(EncoderError, match=r"state.safetensors: damaged .*; delete it"):
        pretrain_encoder(config)


def test_a_loss_that_is_not_finite_stops(config: PretrainConfig) -> None:
    with pytest.raises(SerEmbedError, match="loss is not finite; try a smaller --lr"):
        pretrain_encoder(replace(config, lr=1e20, steps=40))
    assert not (config.out / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("steps", 0), ("batch_size", 0), ("seconds", 0.1), ("decay", 1.5),
                        ("save_every", 0), ("lr", -1.0)]
)  # fmt: skip
def test_impossible_settings(config: PretrainConfig, name: str, value: float) -> None:
    with pytest.raises(EncoderError, match=f"--{name.replace('_', '-')} {value}"):
        pretrain_encoder(replace(config, **{name: value}))


def test_without_labels_there_is_no_emotion_task(
    config: PretrainConfig, tmp_path: Path, write_tone: Callable[..., Path]
) -> None:
    write_tone(tmp_path / "free" / "one.wav", seconds=2.0)
    outcome = pretrain_encoder(replace(config, roots=(tmp_path / "free",), labelled=(), steps=2))
    assert set(outcome.result["losses"]) == set(LOSSES) - {"emotion"}


def test_a_shape_that_is_none(config: PretrainConfig, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"nowhere: no config\.json"):
        pretrain_encoder(replace(config, shape=tmp_path / "nowhere"))
