"""Whole networks: what is saved is what is loaded, and nothing less than whole is."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import tiny_whisper_checkpoint
from safetensors.torch import load_file, save_file

from ser_embed.audio.decoding import load_audio
from ser_embed.bundled import DEMO_CORPUS
from ser_embed.encoders.frozen import load_encoder
from ser_embed.errors import EncoderError, HeadError
from ser_embed.finetune.network import (
    Network,
    build_network,
    is_network,
    load_network,
    save_network,
)
from ser_embed.heads.checkpoint import load_head, read_card, sealed

CLASSES = ("angry", "happy", "neutral", "sad")
KINDS = ("classification", "mlp", "stats")
CARD = {
    "classes": list(CLASSES), "features": {"weights": "0"}, "encoder_trained": True,
    "temperature": 1.0,
}  # fmt: skip

LOAD = """
import sys, json, numpy as np
from pathlib import Path
from ser_embed.finetune.network import load_network
waveforms = list(np.load(sys.argv[1]))
for folder in sys.argv[2:]:
    network, _ = load_network(Path(folder))
    print(json.dumps([network.log_probabilities([w])[0].tolist() for w in waveforms]))
"""


def tiny_encoder(folder: Path, norm: str = "layer", **more: Any) -> Path:
    """Write a seeded wav2vec2 encoder of 60 thousand parameters."""
    settings = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 16, "vocab_size": 8,
        "feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer", "conv_bias": True,
        "mask_time_prob": 0.0, "layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0,
        "activation_dropout": 0.0, "feat_proj_dropout": 0.0,
    }  # fmt: skip
    config = transformers.Wav2Vec2Config(**{**settings, **more})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.Wav2Vec2Model(config)
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(
        do_normalize=True, return_attention_mask=norm == "layer"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    made = {norm: tiny_encoder(folder / norm, norm) for norm in ("layer", "group")}
    return {**made, "whisper": tiny_whisper_checkpoint(folder / "whisper")}


@pytest.fixture(scope="module")
def waveforms() -> np.ndarray:
    """Three real seconds each, (3, 48000)."""
    clips = [load_audio(path) for path in sorted(DEMO_CORPUS.rglob("*.ogg"))[:90:30]]
    return np.stack([np.resize(clip, 48_000) for clip in clips])


def trained(kind: Any, encoder: Path) -> Network:
    """Move every weight, and the statistics of the batch norms, away from where they start."""
    network = build_network(kind, str(encoder), CLASSES, 0.3, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in network.module.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.05 * torch.rand(tensor.shape, generator=generator)
        if kind == "classification":  # small ones hardly tell clips apart
            network.module.classifier.weight *= 30
    return network


# --- saving and loading ----------------------------------------------------------------------


def test_a_fresh_process_says_exactly_what_was_saved(
    encoders: dict[str, Path], waveforms: np.ndarray, tmp_path: Path,
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:  # fmt: skip
    folders, told = [], []
    for kind in KINDS:
        for norm, encoder in encoders.items():
            network = trained(kind, encoder)
            told.append([network.log_probabilities([w])[0] for w in waveforms])
            folders.append(tmp_path / f"{kind}-{norm}")
            save_network(folders[-1], network, CARD)
    np.save(tmp_path / "waveforms.npy", waveforms)
    env = {"OMP_NUM_THREADS": "1"}
    done = run("-c", LOAD, tmp_path / "waveforms.npy", *folders, env=env)
    assert done.returncode == 0, done.stderr
    for line, expected in zip(done.stdout.splitlines()[-len(told) :], told, strict=True):
        np.testing.assert_array_equal(np.float32(json.loads(line)), expected)
        assert np.ptp(expected, axis=0).max() > 1e-3  # the clips are told apart


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_transformers_by_itself_says_the_same(
    norm: str, encoders: dict[str, Path], waveforms: np.ndarray, tmp_path: Path
) -> None:
    network = trained("classification", encoders[norm])
    save_network(tmp_path, network, CARD)
    model, info = transformers.AutoModelForAudioClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert tuple(model.config.id2label[i] for i in range(4)) == CLASSES
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    inputs = extractor(list(waveforms), sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        expected = model.eval()(**inputs).logits.log_softmax(1)
    np.testing.assert_allclose(network.log_probabilities(waveforms), expected, atol=1e-5)


@pytest.fixture
def saved(encoders: dict[str, Path], tmp_path: Path) -> Path:
    save_network(tmp_path / "net", trained("classification", encoders["layer"]), CARD)
    return tmp_path / "net"


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change a checkpoint's tensors, and its card's digest with them, as a careful forger would."""
    weights = folder / "model.safetensors"
    state = load_file(weights)
    change(state)
    save_file(state, weights, metadata={"format": "pt"})
    card = read_card(folder)
    card["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    (folder / "card.json").write_text(sealed(card))


@pytest.mark.parametrize("lost", ["classifier.weight", "projector.bias"])
def test_missing_head_weights_are_refused(saved: Path, lost: str) -> None:
    rewrite(saved, lambda state: state.pop(lost))
    with pytest.raises(HeadError, match=f"lacks 1 tensors, {lost} among them.*random"):
        load_network(saved)
    # What transformers does with it: a head drawn anew, and only a remark.
    _, info = transformers.AutoModelForAudioClassification.from_pretrained(
        saved, output_loading_info=True
    )
    assert set(info["missing_keys"]) == {lost}


def test_a_head_by_other_names_is_refused(saved: Path) -> None:
    """The names of the published RAVDESS checkpoint, whose class is nowhere to be had."""

    def rename(state: dict[str, torch.Tensor]) -> None:
        for part, name in (("projector", "classifier.dense"), ("classifier", "classifier.output")):
            for kind in ("weight", "bias"):
                state[f"{name}.{kind}"] = state.pop(f"{part}.{kind}")

    rewrite(saved, rename)
    with pytest.raises(HeadError, match=r"lacks 4 tensors, classifier\.bias among them"):
        load_network(saved)


def test_weights_that_were_changed_are_refused(saved: Path) -> None:
    digest = read_card(saved)["weights_sha256"]
    rewrite(saved, lambda state: state["classifier.bias"].add_(1))
    card = read_card(saved)
    (saved / "card.json").write_text(sealed({**card, "weights_sha256": digest}))
    with pytest.raises(HeadError, match=r"not the weights that card\.json"):
        load_network(saved)


def test_a_changed_configuration_is_refused(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "do_stable_layer_norm": False}))
    with pytest.raises(HeadError, match=r"config\.json is not the one"):
        load_network(saved)


@pytest.mark.parametrize("file", ["card.json", "config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved: Path, file: str) -> None:
    (saved / file).unlink()
    with pytest.raises(HeadError, match=file.replace(".", r"\.")):
        load_network(saved)


def test_heads_and_networks_are_not_taken_for_each_other(saved: Path, tmp_path: Path) -> None:
    assert is_network(read_card(saved))
    with pytest.raises(HeadError, match=r"head\.safetensors"):
        load_head(saved)
    shutil.copytree(saved, tmp_path / "head")
    card = read_card(saved)
    del card["kind"]
    (tmp_path / "head/card.json").write_text(sealed(card))
    with pytest.raises(HeadError, match="holds a head on frozen features"):
        load_network(tmp_path / "head")


# --- networks --------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["layer", "group", "whisper"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_says_what_each_clip_alone_does(
    kind: str, encoder: str, encoders: dict[str, Path], waveforms: np.ndarray
) -> None:
    network = trained(kind, encoders[encoder])
    clips = [waveforms[0][:9000], waveforms[1], waveforms[2][:30_001]]
    alone = np.concatenate([network.log_probabilities([clip]) for clip in clips])
    together = network.log_probabilities(clips)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_the_perceptron_is_the_published_one(tmp_path: Path, waveforms: np.ndarray) -> None:
    """1,024 -> 512 -> 256 -> 4: the parameters of its printed summary, and its arithmetic."""
    folder = tiny_encoder(tmp_path, hidden_size=1024, num_hidden_layers=1, num_attention_heads=4)
    network = trained("mlp", folder)
    head = network.module.head
    assert sum(p.numel() for p in head.parameters()) == 524_800 + 1024 + 131_328 + 512 + 1028
    batch = network.batch([waveforms[0]])
    state = {name: tensor.double().numpy() for name, tensor in head.state_dict().items()}
    with torch.inference_mode():
        frames = network.module.encoder.eval()(**batch).last_hidden_state
    x = frames[0].mean(0).double().numpy()
    for layer in ("dense.0", "dense.1"):
        x = state[f"{layer}.0.weight"] @ x + state[f"{layer}.0.bias"]
        spread = np.sqrt(state[f"{layer}.1.running_var"] + 1e-5)
        x = (x - state[f"{layer}.1.running_mean"]) / spread
        x = np.maximum(x * state[f"{layer}.1.weight"] + state[f"{layer}.1.bias"], 0)
    x = state["output.weight"] @ x + state["output.bias"]
    expected = x - np.log(np.exp(x).sum())
    np.testing.assert_allclose(network.log_probabilities([waveforms[0]])[0], expected, atol=1e-4)


def test_transformers_loads_a_classifier_on_whisper(
    encoders: dict[str, Path], waveforms: np.ndarray, tmp_path: Path
) -> None:
    """On clips of 30 s, which is what it takes, it says the same."""
    network = trained("classification", encoders["whisper"])
    save_network(tmp_path, network, CARD)
    model, info = transformers.AutoModelForAudioClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not info["missing_keys"] | info["unexpected_keys"]
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    clip = np.resize(waveforms[0], 479_800)  # its end is mirrored there, and silence here
    inputs = extractor(clip, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        expected = model.eval()(**inputs).logits.log_softmax(1)
    padded = np.pad(clip, (0, 200))
    np.testing.assert_allclose(network.log_probabilities([padded]), expected, atol=1e-4)


@pytest.mark.parametrize(("freeze", "frozen"), [(0, 2), (1, 3), ("all", None)])
def test_parts_of_whisper_are_frozen(freeze: Any, frozen: Any, encoders: dict[str, Path]) -> None:
    network = build_network("stats", str(encoders["whisper"]), CLASSES, 0.0, seed=0)
    whole = sum(network.parameters)
    positions = network.encoder.embed_positions.weight.numel()
    parts = [network.encoder.conv1, network.encoder.conv2, *network.encoder.layers]
    still = sum(p.numel() for part in parts[:frozen] for p in part.parameters()) + positions
    if freeze == "all":
        still = network.parameters[0]
    assert network.freeze(freeze) == whole - still
    with pytest.raises(EncoderError, match="whisper: its hidden states can't be masked"):
        network.mask_states(0.1, None)


def test_the_head_of_stage_2_sees_what_stage_1_stores(
    encoders: dict[str, Path], waveforms: np.ndarray
) -> None:
    """The mean and deviation of every layer, clip by clip, of a batch of different lengths."""
    folder = str(encoders["layer"])
    clips = [waveforms[0], waveforms[1][:20_000], waveforms[2][:31_111]]
    network = trained("stats", encoders["layer"])
    weights = build_network("stats", folder, CLASSES, 0.0, 0).module.encoder.state_dict()
    network.module.encoder.load_state_dict(weights)
    network.module.eval()
    with torch.inference_mode():
        pooled = network.module.pooled(**network.batch(clips)).numpy()
    states = load_encoder(folder, "all", backend="torch").encode(clips)
    for row, clip in zip(pooled, states, strict=True):
        clip = np.asarray(clip, dtype=np.float64)  # (L, T, D)
        expected = np.concatenate([clip.mean(1).ravel(), clip.std(1).ravel()])
        np.testing.assert_allclose(row, expected, atol=2e-3)


def test_states_are_masked_in_training_alone(
    encoders: dict[str, Path], waveforms: np.ndarray
) -> None:
    network = build_network("stats", str(encoders["layer"]), CLASSES, 0.0, seed=0)
    before = network.log_probabilities([waveforms[0]])
    batch, module = network.batch([waveforms[0]]), network.module

    def _two() -> list[torch.Tensor]:
        with torch.inference_mode():
            return [module.encoder.train()(**batch).last_hidden_state for _ in range(2)]

    network.mask_states(None, None)
    torch.testing.assert_close(*_two())
    for shares in ((0.3, 0.0), (0.0, 0.3)):
        network.mask_states(*shares)
        assert not torch.allclose(*_two(), atol=0.1)
    np.testing.assert_array_equal(network.log_probabilities([waveforms[0]]), before)
    module.encoder.config = transformers.BertConfig()  # which has no such thing
    with pytest.raises(EncoderError, match="bert: its hidden states can't be masked"):
        network.mask_states(0.1, None)


@pytest.mark.parametrize("name", ["Hubert", "WavLM"])
def test_other_encoders_are_masked_too(name: str, waveforms: np.ndarray, tmp_path: Path) -> None:
    config = getattr(transformers, f"{name}Config")(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        conv_dim=(16,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        mask_time_prob=0.0, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0,
        feat_proj_dropout=0.0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        getattr(transformers, f"{name}Model")(config).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    network = build_network("stats", str(tmp_path), CLASSES, 0.0, seed=0)
    network.mask_states(0.2, 0.2)
    with torch.inference_mode():
        states = [network.module.encoder.train()(
            **network.batch(list(waveforms))).last_hidden_state for _ in range(2)]  # fmt: skip
    assert not torch.allclose(*states, atol=0.1)
    save_network(tmp_path / "saved", network, CARD)
    loaded, _ = load_network(tmp_path / "saved")
    clip = [waveforms[0]]
    np.testing.assert_array_equal(network.log_probabilities(clip), loaded.log_probabilities(clip))


def test_no_layer_is_skipped_where_all_are_used(waveforms: np.ndarray, tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path, layerdrop=0.9)
    network = build_network("stats", str(encoder), CLASSES, 0.0, seed=0)
    for _ in range(5):
        assert network.module.train()(**network.batch(list(waveforms)))["logits"].shape == (3, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", [0.0, 0.2])
def test_masks_that_an_encoder_had_not_are_saved_and_loaded(
    kind: Any, own: float, waveforms: np.ndarray, tmp_path: Path
) -> None:
    """transformers has a tensor more, or one less, by what the configuration says."""
    encoder = tiny_encoder(tmp_path / "encoder", mask_time_prob=own)
    for share in (0.0, 0.1):
        network = build_network(kind, str(encoder), CLASSES, 0.0, seed=0)
        network.mask_states(share, 0.0)
        network.module.train()(**network.batch(list(waveforms)))
        save_network(tmp_path / f"{share}", network, CARD)
        loaded, _ = load_network(tmp_path / f"{share}")
        np.testing.assert_array_equal(
            *(one.log_probabilities([waveforms[0]]) for one in (network, loaded))
        )


def test_new_weights_come_from_the_seed_and_old_ones_from_the_checkpoint(
    encoders: dict[str, Path],
) -> None:
    before = torch.random.get_rng_state()
    states = [
        build_network("classification", str(encoders["layer"]), CLASSES, 0.0, s).module.state_dict()
        for s in (0, 0, 1)
    ]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert not torch.equal(states[0]["classifier.weight"], states[2]["classifier.weight"])
    stored = load_file(encoders["layer"] / "model.safetensors")
    assert len(stored) > 30
    for name, tensor in stored.items():
        for state in states:
            torch.testing.assert_close(state[f"wav2vec2.{name}"], tensor, rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lowest", ["none", 0, 1, 2, "all"])
def test_what_is_frozen_stays_and_the_rest_learns(
    kind: str, lowest: Any, encoders: dict[str, Path], waveforms: np.ndarray
) -> None:
    network = build_network(kind, str(encoders["group"]), CLASSES, 0.0, seed=0)
    left = network.freeze(lowest)
    module = network.module.train()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    logits = module(**network.batch(list(waveforms)))["logits"]
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    torch.optim.SGD([p for p in module.parameters() if p.grad is not None], 1.0).step()
    moved = {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}
    place = "wav2vec2." if kind == "classification" else "encoder."
    free = {n for n in before if not n.startswith(place)}
    layer = {n: n.split("layers.")[1][0] for n in before if ".layers." in n}
    if lowest != "all":
        free |= {n for n, number in layer.items() if lowest == "none" or int(number) >= lowest}
    if lowest in ("none", 0):
        free |= {n for n in before if "feature_projection" in n or "pos_conv" in n}
        free |= {n for n in before if n.startswith(f"{place}encoder.layer_norm")}
    if lowest == "none":
        free |= {n for n in before if "feature_extractor" in n}
    assert moved <= free
    assert {n for n in free - moved if "k_proj.bias" not in n} <= {
        n for n in free if "pos_conv" in n or "masked_spec" in n or "output.bias" in n
    }
    assert left == sum(
        before[n].numel()
        for n in before
        if n in free or ("masked_spec_embed" in n and lowest != "all")
    )


def test_too_many_layers_to_freeze(encoders: dict[str, Path]) -> None:
    network = build_network("mlp", str(encoders["layer"]), CLASSES, 0.0, seed=0)
    assert network.n_layers == 2
    for number in (3, -1):
        with pytest.raises(EncoderError, match=f"--freeze {number}: the encoder has 2 layers"):
            network.freeze(number)


def test_an_encoder_of_the_hub_without_the_hub(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = run("-m", "ser_embed.finetune", "--recipe", "ravdess8", "--corpus", "demo", env=env)
    assert done.returncode == 1
    said = "xlsr-53-english: jonatasgrosman/wav2vec2-large-xlsr-53-english is neither in the local"
    assert said in done.stderr
    assert "--encoder mini" in done.stderr
    assert "Traceback" not in done.stderr
