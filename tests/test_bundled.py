"""What ships, encoders and heads: their READMEs tell the truth, and other tools can load them."""

import hashlib
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers
from safetensors import safe_open

from ser_embed.bundled import BUNDLED_ENCODERS, BUNDLED_HEADS, DEMO_CORPUS, changed_files
from ser_embed.corpora.labels import LabelScheme
from ser_embed.corpora.listing import read_corpus
from ser_embed.encoders import checkpoints as checkpoints
from ser_embed.encoders.frozen import load_encoder
from ser_embed.encoders.registry import ENCODERS
from ser_embed.errors import EncoderError
from ser_embed.heads.checkpoint import read_card
from ser_embed.predict.classifier import Classifier

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
    t = np.arange(16_000) / 16_000
    rng = np.random.default_rng(0)

    def buzz(pitch: float) -> np.ndarray:
        return sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 10)).astype(np.float32)

    noise = rng.standard_normal(16_000).astype(np.float32)
    low, near, other = (s[0].mean(0) for s in encoder.encode([buzz(120), buzz(125), noise]))
    assert np.linalg.norm(low - near) < 0.5 * np.linalg.norm(low - other)


def test_the_readme_shows_the_ablation_that_was_measured(project: Path) -> None:
    spec = importlib.util.spec_from_file_location("ablation", project / "benchmarks/ablation.py")
    assert spec
    assert spec.loader
    sys.modules["ablation"] = ablation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ablation)
    folder = BUNDLED_ENCODERS / "mini"
    measured = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))
    assert set(measured) == {*ablation.VARIANTS, *ablation.MEASURED_BEFORE}
    assert ablation.table(measured) in (folder / "README.md").read_text(encoding="utf-8")


# --- trained heads ---------------------------------------------------------------------------

HEADS = ("sentiment3", "emotion8")


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_found_by_name_and_fits_the_encoder_that_ships(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no run is, and no folder of that name
    classifier = Classifier.load(Path(name))
    assert classifier.run == BUNDLED_HEADS / name
    assert classifier.classes == LabelScheme.load(name).classes
    assert (classifier.card["demo"], classifier.card["encoder_trained"]) == (False, True)
    assert set(classifier.card["corpora"]) == {"ravdess", "tess", "urdu"}
    clip = next(iter(sorted(DEMO_CORPUS.rglob("*.ogg"))))
    prediction = classifier.classify_file(clip)
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_sentiment_is_what_classifies_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Classifier.load().run == BUNDLED_HEADS / "sentiment3"


@pytest.mark.parametrize("name", HEADS)
def test_a_head_ships_with_its_report_and_its_card_says_what_it_is(name: str) -> None:
    folder = BUNDLED_HEADS / name
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for file in ("report.md", "confusion.png", "reliability.png"):
        assert (folder / file).stat().st_size > 1000
    text = (BUNDLED_HEADS / "README.md").read_text(encoding="utf-8")
    low, high = (f"{100 * bound:.1f}" for bound in report["uar_ci"])
    uar = f"{100 * np.mean(list(report['folds'].values())):.1f}"
    assert f"| `{name}` | {uar} [{low}, {high}] |" in text
    assert report["leakage"]["shared_speakers"] == 0
    card = read_card(sorted(folder.glob("*/card.json"))[0].parent)
    for said in ("CC BY-NC-SA 4.0", "AI Act", card["command"]):
        assert said in text


@pytest.mark.parametrize("name", HEADS)
def test_a_head_knows_real_clips(name: str, shared: Path) -> None:
    """Far from a guess on RAVDESS; its own report says how far on voices it never met."""
    classifier = Classifier.load(Path(name))
    scheme = LabelScheme.load(name)
    clips = read_corpus(shared / "corpora/ravdess", "ravdess").utterances[::40]
    right = [
        classifier.classify_file(clip.path).label == scheme.mapping[clip.emotion] for clip in clips
    ]
    assert np.mean(right) > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_ships_with_its_sums(name: str) -> None:
    """After a new one was made: sha256sum *.json model.safetensors > SHA256SUMS."""
    folder = BUNDLED_ENCODERS / name
    assert changed_files(folder) == []
    listed = (folder / "SHA256SUMS").read_text().split()[1::2]
    assert sorted(listed) == ["config.json", "model.safetensors", "preprocessor_config.json"]


@pytest.mark.parametrize(
    ("file", "place"), [("config.json", 100), ("preprocessor_config.json", 60), ("SHA256SUMS", 3)]
)
def test_a_damaged_encoder_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, place: int
) -> None:
    folder = tmp_path / "mini"
    shutil.copytree(BUNDLED_ENCODERS / "mini", folder)
    data = bytearray((folder / file).read_bytes())
    data[place] ^= 1
    (folder / file).write_bytes(bytes(data))
    monkeypatch.setattr(checkpoints, "BUNDLED_ENCODERS", tmp_path)
    with pytest.raises(EncoderError, match=r"is damaged: .* changed since it was made"):
        load_encoder("mini")
