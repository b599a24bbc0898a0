"""The encoders that ship: what their READMEs say of them is so, and any tool can load them."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import transformers
from safetensors import safe_open

from ser_embed.bundled import BUNDLED_ENCODERS
from ser_embed.checkpoints import ENCODERS
from ser_embed.encoder import load_encoder

NAMES = [name for name, spec in ENCODERS.items() if spec.source == "bundled"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small(name: str) -> None:
    file = BUNDLED_ENCODERS / name / "model.safetensors"
    assert file.stat().st_size <= 20e6
    with safe_open(file, framework="np") as tensors:
        shapes = {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}  # noqa: SIM118
        assert {tensors.get_slice(key).get_dtype() for key in shapes} == {"F16"}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) <= 10_000_000


@pytest.mark.parametrize("name", NAMES)
def test_transformers_loads_it_whole(name: str) -> None:
    folder = BUNDLED_ENCODERS / name
    model, info = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    assert extractor.sampling_rate == 16_000
    config = json.loads((folder / "config.json").read_text())
    assert model.config.hidden_size == config["hidden_size"] == 256


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_has_its_digest_and_licence(name: str, project: Path) -> None:
    folder = BUNDLED_ENCODERS / name
    text = (folder / "README.md").read_text(encoding="utf-8")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest in text
    assert ENCODERS[name].licence in text
    commands = re.findall(r"python -m ser_embed\.pretrain[^`]*", text)
    assert commands
    assert any("nemo" in command for command in commands) == ("NC" in ENCODERS[name].licence)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_trained_and_hears_a_difference(name: str) -> None:
    """Its states of a tone and of noise are further apart than those of two tones."""
    encoder = load_encoder(name, backend="torch")
    assert encoder.trained
    assert encoder.masks
    t = np.arange(16_000) / 16_000
    rng = np.random.default_rng(0)

    def buzz(pitch: float) -> np.ndarray:
        return sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 10)).astype(np.float32)

    noise = rng.standard_normal(16_000).astype(np.float32)
    low, near, other = (s[0].mean(0) for s in encoder.encode([buzz(120), buzz(125), noise]))
    assert np.linalg.norm(low - near) < 0.5 * np.linalg.norm(low - other)
