"""Fixtures that several test modules use."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from safetensors.torch import load_file, save_file

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Leave the other core to the other test process: two that share both wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep converted networks away from the user's."""
    os.environ["SER_EMBED_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root."""
    return PROJECT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real corpora."""
    folder = Path(os.environ.get("SER_EMBED_SHARED", PROJECT.parent / "shared"))
    if not (folder / "corpora").is_dir():
        pytest.skip(f"no real corpora at {folder} (set SER_EMBED_SHARED)")
    return folder


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python *args` in the project's root, as a user does."""

    def _run(
        *args: object, env: dict[str, str] | None = None, timeout: float = 300, cwd: Path = PROJECT
    ) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if k != "SER_EMBED_DATA"}
        return subprocess.run(
            [sys.executable, *map(str, args)],
            cwd=cwd,
            env={**clean, "PYTHONPATH": str(PROJECT), **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return _run


@pytest.fixture(scope="session")
def write_tone() -> Callable[..., Path]:
    """Write a short voiced-like clip: harmonics of f0 under a slow envelope, with some noise."""

    def _write(
        path: Path,
        seconds: float = 1.0,
        rate: int = 16_000,
        channels: int = 1,
        f0: float = 220.0,
        seed: int = 0,
    ) -> Path:
        rng = np.random.default_rng(seed)
        time = np.arange(round(seconds * rate)) / rate
        voice = sum(np.sin(2 * np.pi * f0 * k * time) / k for k in (1, 2, 3, 4))
        envelope = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * time) ** 2
        mono = 0.1 * voice * envelope + 0.003 * rng.standard_normal(len(time))
        samples = np.stack([mono * (1 - 0.1 * c) for c in range(channels)], axis=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples.astype(np.float32), rate)
        return path

    return _write


@pytest.fixture(scope="session")
def demo_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs on the demo clips by split, from the real stages 1 and 2, and their `features`."""
    from ser_embed.extract import ExtractConfig, extract
    from ser_embed.train import training as train

    folder = tmp_path_factory.mktemp("demo")
    extract(ExtractConfig(
        corpus="demo", limit=96, backend="torch", workers=0, features_dir=folder / "features",
        quiet=True,
    ))  # fmt: skip
    found = {"features": folder / "features"}
    for split, epochs in (("kfold", 2), ("speaker", 4)):
        config = train.TrainConfig(
            features_dir=folder / "features", runs_dir=folder / "runs", split=split, epochs=epochs,
            json=True, quiet=True,
        )  # fmt: skip
        found[split] = Path(train.train(config).result["run"])
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Playwright's Chromium without a window, for a module: another may want its own."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def tiny_checkpoint(folder: Path, gain: float = 1.0) -> Path:
    """A wav2vec2 of a few thousand weights whose last norm multiplies by `gain`."""
    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
        conv_dim=(8,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layers.1.final_layer_norm.weight"] *= gain
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a small encoder, for tests to which it is all the same."""
    return str(tiny_checkpoint(tmp_path_factory.mktemp("encoders") / "tiny"))


def tiny_whisper_checkpoint(folder: Path, n_mels: int = 80) -> Path:
    """A whole Whisper of a few thousand weights, decoder and all, as transformers saves it."""
    config = transformers.WhisperConfig(
        d_model=32, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=48,
        decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=48, num_mel_bins=n_mels,
        vocab_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.WhisperForConditionalGeneration(config)
    model.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=n_mels).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small Whisper."""
    return tiny_whisper_checkpoint(tmp_path_factory.mktemp("encoders") / "whisper")
