"""Every encoder family against transformers run one clip at a time, and what can go wrong."""

import json
import os
import pickle
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
import transformers
from conftest import tiny_checkpoint
from safetensors.torch import load_file, save_file

from ser_embed.encoders.frozen import Encoder, load_encoder, normalise
from ser_embed.encoders.registry import ENCODERS
from ser_embed.errors import EncoderError

# torch's own remark on the mask that transformers gives WavLM's attention
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")

Run = Callable[..., subprocess.CompletedProcess[str]]

LAYERS = 3
GROUP = {"feat_extract_norm": "group", "conv_bias": False, "do_stable_layer_norm": False}
LAYER = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
POST = {**LAYER, "do_stable_layer_norm": False}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2-group": ("wav2vec2", GROUP),
    "wav2vec2-layer": ("wav2vec2", LAYER),
    "wav2vec2-layer-post": ("wav2vec2", POST),
    "hubert-group": ("hubert", GROUP),
    "hubert-layer": ("hubert", LAYER),
    "wavlm-group": ("wavlm", GROUP),
    "wavlm-layer": ("wavlm", LAYER),
    "distilhubert": ("hubert", {**GROUP, "feat_proj_layer_norm": False}),
    "data2vec": ("data2vec-audio", {"conv_bias": True, "num_conv_pos_embeddings": 5}),
    "unispeech-group": ("unispeech", GROUP),
    "unispeech-sat-layer": ("unispeech-sat", LAYER),
}
NAMES = sorted(FAMILIES)
LENGTHS = (16_000, 9_000, 16_000, 12_345, 400, 9_000)


def clips(lengths: Sequence[int] = LENGTHS, seed: int = 0) -> list[np.ndarray]:
    """Noise of different levels and offsets, so that scaling to unit variance shows."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(0.02 * i, 0.05 * (i + 1), n)).astype(np.float32) for i, n in enumerate(lengths)
    ]


def tiny_config(family: str, **changes: Any) -> Any:
    """The real kernels and strides, 16 channels, 3 layers of width 32."""
    model_type, norms = FAMILIES[family]
    values = {
        "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "intermediate_size": 48, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4, "vocab_size": 32,
        "layerdrop": 0.9, "hidden_dropout": 0.5, "mask_time_prob": 0.5, **norms, **changes,
    }  # fmt: skip
    return transformers.AutoConfig.for_model(model_type, **values)


def seeded_model(config: Any, kind: Any = transformers.AutoModel, gain: float = 4.0) -> Any:
    """A model whose weights are large enough for every layer to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = kind.from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1 and "original0" not in name:
                    parameter.mul_(gain)
                elif name.endswith("bias"):
                    parameter.normal_(0, 0.2)
    return model


def save(model: Any, folder: Path, do_normalize: bool = True) -> Path:
    model.save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize)
    extractor.save_pretrained(folder)
    return folder


def oracle(folder: Path, waveforms: Sequence[np.ndarray]) -> list[Any]:
    """What transformers gives for each clip by itself, with nothing cut and nothing padded."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    kind = transformers.AutoModel
    if (folder / "ctc").exists():
        kind = transformers.AutoModelForCTC
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return [
            model(
                extractor(w, sampling_rate=16_000, return_tensors="pt").input_values,
                output_hidden_states=True,
            )
            for w in waveforms
        ]


def layers_of(output: Any) -> tuple[torch.Tensor, ...]:
    """Hidden states 0 to N; transformers 5 gives the N-th without the encoder's final norm."""
    return (*output.hidden_states[:-1], output.last_hidden_state)


def assert_close(ours: np.ndarray, theirs: torch.Tensor, relative: float = 1e-5) -> None:
    wanted = theirs.numpy()
    assert ours.shape == wanted.shape
    assert ours.dtype == np.float32
    assert np.linalg.norm(ours - wanted) <= relative * np.linalg.norm(wanted)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that saves a tiny checkpoint of a family, once."""
    base = tmp_path_factory.mktemp("checkpoints")

    def _checkpoint(family: str, do_normalize: bool = True, ctc: bool = False) -> Path:
        folder = base / f"{family}-{do_normalize}-{ctc}"
        if not folder.exists():
            kind = transformers.AutoModelForCTC if ctc else transformers.AutoModel
            save(seeded_model(tiny_config(family), kind), folder, do_normalize)
            if ctc:
                (folder / "ctc").touch()
        return folder

    return _checkpoint


def torch_encoder(folder: Path | str, layer: Any, **options: Any) -> Encoder:
    return load_encoder(str(folder), layer, backend="torch", **options)


def network(encoder: Encoder) -> Any:
    return encoder.backend.network  # type: ignore[attr-defined]


# --- every family ----------------------------------------------------------------------------


@pytest.mark.parametrize("do_normalize", [True, False])
@pytest.mark.parametrize("family", NAMES)
def test_each_layer_is_transformers_own(
    family: str, do_normalize: bool, checkpoint: Callable[..., Path]
) -> None:
    folder = checkpoint(family, do_normalize)
    waveforms = clips()
    wanted = oracle(folder, waveforms)
    for layer in range(LAYERS + 1):
        encoder = torch_encoder(folder, layer)
        assert encoder.do_normalize == do_normalize
        assert encoder.trained
        for states, truth in zip(encoder.encode(waveforms), wanted, strict=True):
            assert_close(states, layers_of(truth)[layer])
    everything = torch_encoder(folder, "all").encode(waveforms)
    for states, truth in zip(everything, wanted, strict=True):
        assert_close(states, torch.cat(layers_of(truth)))


@pytest.mark.parametrize("family", NAMES)
def test_a_batch_gives_what_each_clip_gives_alone(
    family: str, checkpoint: Callable[..., Path]
) -> None:
    encoder = torch_encoder(checkpoint(family), 2)
    waveforms = clips()
    together = encoder.encode(waveforms)
    backwards = encoder.encode(waveforms[::-1])[::-1]
    for waveform, one, other in zip(waveforms, together, backwards, strict=True):
        alone = torch.from_numpy(encoder.encode([waveform])[0])
        assert_close(one, alone)
        assert_close(other, alone)


@pytest.mark.parametrize("family", ["wav2vec2-group", "wav2vec2-layer"])
def test_clips_of_any_length_share_a_batch(family: str, checkpoint: Callable[..., Path]) -> None:
    """With a mask where their lengths differ."""
    encoder = torch_encoder(checkpoint(family), 1)
    seen: list[tuple[tuple[int, ...], Any]] = []
    network(encoder).register_forward_pre_hook(
        lambda module, inputs: seen.append((tuple(inputs[0].shape), inputs[1]))
    )
    encoder.encode(clips())
    assert [shape for shape, _ in seen] == [(6, 16_000)]
    assert seen[0][1].sum(dim=1).tolist() == list(LENGTHS)
    encoder.encode(clips([9_000, 9_000]))
    assert seen[1][1] is None


@pytest.mark.parametrize("family", NAMES)
def test_layers_above_are_not_there(family: str, checkpoint: Callable[..., Path]) -> None:
    whole = transformers.AutoModel.from_pretrained(checkpoint(family))
    per_layer = [sum(p.numel() for p in layer.parameters()) for layer in whole.encoder.layers]
    total = sum(p.numel() for p in whole.parameters())
    stable = getattr(whole.config, "do_stable_layer_norm", False)
    for layer in range(LAYERS + 1):
        model = network(torch_encoder(checkpoint(family), layer)).model
        assert len(model.encoder.layers) == layer
        final_norm = 2 * 32 if stable and layer < LAYERS else 0
        left = sum(p.numel() for p in model.parameters())
        assert left == total - sum(per_layer[layer:]) - final_norm


@pytest.mark.parametrize("family", NAMES)
def test_it_is_frozen_in_evaluation_mode(family: str, checkpoint: Callable[..., Path]) -> None:
    """With layer drop and dropout in the configuration, every run is the same to the bit."""
    encoder = torch_encoder(checkpoint(family), "all")
    assert not any(module.training for module in network(encoder).modules())
    assert not any(p.requires_grad for p in network(encoder).parameters())
    waveforms = clips()
    first = encoder.encode(waveforms)
    for _ in range(3):
        for one, other in zip(first, encoder.encode(waveforms), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("family", NAMES)
def test_logits_of_a_ctc_model(family: str, checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint(family, ctc=True)
    waveforms = clips()
    wanted = oracle(folder, waveforms)
    for states, truth in zip(
        torch_encoder(folder, "logits").encode(waveforms), wanted, strict=True
    ):
        assert_close(states, truth.logits)
    # Its encoder serves without the CTC head, too.
    for states, truth in zip(torch_encoder(folder, 2).encode(waveforms), wanted, strict=True):
        assert_close(states, truth.hidden_states[2])


# --- what a checkpoint may look like -----------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["wav2vec2-group", "wavlm-layer"])
def test_a_half_precision_checkpoint_computes_in_fp32(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    folder = save(seeded_model(tiny_config(family)).to(dtype), tmp_path / "half")
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    encoder = torch_encoder(folder, 2)
    assert {p.dtype for p in network(encoder).parameters()} == {torch.float32}
    waveforms = clips()
    wanted = oracle(folder, waveforms)
    for states, truth in zip(encoder.encode(waveforms), wanted, strict=True):
        assert_close(states, truth.hidden_states[2])


def test_weight_norm_under_its_old_names(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """The hub's older checkpoints call the positional convolution's tensors weight_g, weight_v."""
    folder = checkpoint("wav2vec2-group")
    old = tmp_path / "old"
    save(seeded_model(tiny_config("wav2vec2-group")), old)
    tensors = load_file(old / "model.safetensors")
    names = {"parametrizations.weight.original0": "weight_g",
             "parametrizations.weight.original1": "weight_v"}  # fmt: skip
    renamed = {}
    for name, tensor in tensors.items():
        for new, former in names.items():
            name = name.replace(new, former)
        renamed[name] = tensor
    assert len(set(renamed) - set(tensors)) == 2
    save_file(renamed, old / "model.safetensors", metadata={"format": "pt"})
    assert torch_encoder(old, 2).weights == torch_encoder(folder, 2).weights


def test_weights_as_pytorch_bin(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Some of the hub's checkpoints have no safetensors."""
    folder = save(seeded_model(tiny_config("hubert-group")), tmp_path / "bin")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert torch_encoder(folder, 2).weights == torch_encoder(checkpoint("hubert-group"), 2).weights


class Explosive:
    """Unpickled, it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    folder = save(seeded_model(tiny_config("hubert-group")), tmp_path / "evil")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Explosive(tmp_path / "ran")))
    with pytest.raises(EncoderError, match="not a loadable encoder folder"):
        torch_encoder(folder, 2)
    torch.save(Explosive(tmp_path / "ran"), folder / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="not a loadable encoder folder"):
        torch_encoder(folder, 2)
    assert not (tmp_path / "ran").exists()


def test_without_preprocessor_config_it_says_what_it_takes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save(seeded_model(tiny_config("wav2vec2-layer")), tmp_path / "bare")
    (folder / "preprocessor_config.json").unlink()
    assert torch_encoder(folder, 1).do_normalize
    assert "no preprocessor_config.json" in caplog.text


def test_a_checkpoint_without_ctc_head_has_no_logits(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(EncoderError, match=r"no CTC head.*lm_head"):
        torch_encoder(checkpoint("wav2vec2-group"), "logits")


@pytest.mark.parametrize("lost", ["encoder.layers.2.attention.q_proj.weight", "feature_projection"])
def test_a_checkpoint_that_lacks_a_tensor(lost: str, tmp_path: Path) -> None:
    folder = save(seeded_model(tiny_config("wav2vec2-layer")), tmp_path / "torn")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(lost)}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=f"lacks {len(tensors) - len(kept)} tensors, {lost}"):
        torch_encoder(folder, 1)


def test_the_mask_embedding_may_be_absent(tmp_path: Path) -> None:
    folder = save(seeded_model(tiny_config("wav2vec2-layer")), tmp_path / "plain")
    tensors = load_file(folder / "model.safetensors")
    before = torch_encoder(folder, 1).weights
    del tensors["masked_spec_embed"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch_encoder(folder, 1).weights == before


def test_weights_of_another_shape(tmp_path: Path) -> None:
    folder = save(seeded_model(tiny_config("wav2vec2-layer")), tmp_path / "other")
    tiny_config("wav2vec2-layer", intermediate_size=50).save_pretrained(folder)
    with pytest.raises(EncoderError, match="not a loadable encoder folder"):
        torch_encoder(folder, 1)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"not JSON"),
        ("config.json", b'{"model_type": "wav2vec2", "hidden_size": "wide"}'),
        ("model.safetensors", b"not a safetensors file at all"),
        ("model.safetensors", b""),
        ("model.safetensors", None),
    ],
)
def test_a_damaged_folder(file: str, content: bytes | None, tmp_path: Path) -> None:
    folder = save(seeded_model(tiny_config("wav2vec2-group")), tmp_path / "damaged")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(EncoderError, match="damaged: not a loadable encoder folder"):
        torch_encoder(folder, 1)


def test_a_truncated_checkpoint(tmp_path: Path) -> None:
    folder = save(seeded_model(tiny_config("wav2vec2-group")), tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(EncoderError, match="cut: not a loadable encoder folder"):
        torch_encoder(folder, 1)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="not a loadable encoder folder"):
        torch_encoder(tmp_path, 1)


def test_a_model_of_another_kind(tmp_path: Path) -> None:
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="'bert' model; supported are wav2vec2, hubert, wavlm"):
        torch_encoder(tmp_path, 1)


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    tiny_config("wav2vec2-layer", add_adapter=True).save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="adapter"):
        torch_encoder(tmp_path, 1)


@pytest.mark.parametrize("layer", [-1, LAYERS + 1, 99, "last"])
def test_a_layer_that_is_not_there(layer: Any, checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(EncoderError, match=f"no layer {layer}; it has 0 to {LAYERS}"):
        torch_encoder(checkpoint("hubert-layer"), layer)


def test_the_default_is_the_middle_layer(checkpoint: Callable[..., Path]) -> None:
    assert torch_encoder(checkpoint("hubert-layer"), None).layer == LAYERS // 2


# --- names and the hub -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["whisper", "/no/such/folder", "./folder", "a/b/c"])
def test_a_name_that_is_nothing(name: str) -> None:
    with pytest.raises(EncoderError, match=r"neither a name .*mini.*hub id.*nor a folder"):
        load_encoder(name)


ASK = """
import sys, time
from ser_embed.encoders.frozen import load_encoder
from ser_embed.errors import EncoderError
slept, sleep = [], time.sleep
time.sleep = lambda seconds: (slept.append(seconds), sleep(seconds))
for name in sys.argv[1:]:
    try:
        encoder = load_encoder(name, 2, backend="torch")
        print("loaded", name, encoder.weights, encoder.do_normalize)
    except EncoderError as error:
        print("error", error)
assert not slept, f"waits {slept} s for a network that isn't there"
"""


@pytest.mark.parametrize(
    "without_network",
    [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}],
    ids=["told", "found out"],
)
def test_without_the_hub(
    without_network: dict[str, str],
    checkpoint: Callable[..., Path],
    tmp_path: Path,
    run: Run,
) -> None:
    """What is in the hub's cache loads; anything else is an error that names a way out."""
    cached = tmp_path / "hub" / "models--facebook--wav2vec2-base"
    commit = "0" * 40
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    save(seeded_model(tiny_config("wav2vec2-group")), cached / "snapshots" / commit, False)
    asked = ("wav2vec2-base", "hubert-base", "someone/some-model")
    done = run("-c", ASK, *asked, env={"HF_HOME": str(tmp_path), **without_network})
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    weights = torch_encoder(checkpoint("wav2vec2-group"), 2).weights
    assert first == f"loaded wav2vec2-base {weights} False"
    assert second.startswith("error hubert-base: facebook/hubert-base-ls960 is neither in")
    assert third.startswith("error someone/some-model: someone/some-model is neither in")
    for line in (second, third):
        assert "--encoder mini" in line
        assert "the folder of a checkpoint" in line
    assert "Traceback" not in done.stderr


def test_every_named_encoder_says_what_it_is() -> None:
    for name, spec in ENCODERS.items():
        assert name == name.lower()
        assert spec.source in ("bundled", "hub", "seeded", "torchaudio", "spectrum")
        assert spec.licence
        assert spec.about


# --- the encoder's own contract ----------------------------------------------------------------


def test_three_seconds_are_149_frames() -> None:
    encoder = load_encoder("random-mini", 0, backend="torch")
    assert encoder.n_frames(48_000) == 149
    assert encoder.n_frames(400) == 1
    assert [encoder.n_frames(n) for n in (399, 10, 1, 0)] == [0, 0, 0, 0]


def test_frames_counted_are_frames_given(checkpoint: Callable[..., Path]) -> None:
    encoder = torch_encoder(checkpoint("wav2vec2-group"), 0)
    rng = np.random.default_rng(0)
    edges = [400 + 320 * k + d for k in (0, 1, 2, 37) for d in (-1, 0, 1) if 320 * k + d >= 0]
    lengths = [*edges, *(int(n) for n in rng.integers(400, 60_000, 30))]
    for n, states in zip(lengths, encoder.encode(clips(lengths)), strict=True):
        assert states.shape == (1, encoder.n_frames(n), 32)


@pytest.mark.parametrize("n", [0, 1, 399])
def test_too_short_a_clip(n: int, checkpoint: Callable[..., Path]) -> None:
    encoder = torch_encoder(checkpoint("wav2vec2-layer"), 0)
    with pytest.raises(EncoderError, match=f"{n} samples; 400 are needed"):
        encoder.encode([*clips([16_000]), np.zeros(n, dtype=np.float32)])


def test_no_clips_give_no_states(checkpoint: Callable[..., Path]) -> None:
    assert torch_encoder(checkpoint("wav2vec2-layer"), 0).encode([]) == []


@pytest.mark.parametrize("norm", ["frame", "clip", "none"])
def test_features_are_normalised_states(norm: Any, checkpoint: Callable[..., Path]) -> None:
    waveforms = clips([16_000, 9_000])
    one = torch_encoder(checkpoint("wav2vec2-layer"), 2)
    every = torch_encoder(checkpoint("wav2vec2-layer"), "all")
    for encoder in (one, every):
        for states, (features, extrema) in zip(
            encoder.encode(waveforms), encoder.features(waveforms, norm, "none"), strict=True
        ):
            wanted, wanted_extrema = normalise(states, norm)
            if encoder is one:
                wanted = wanted[0]
                wanted_extrema = wanted_extrema[0] if norm != "none" else wanted_extrema
            np.testing.assert_array_equal(features, wanted)
            np.testing.assert_array_equal(extrema, wanted_extrema)


@pytest.mark.parametrize("norm", ["frame", "none"])
def test_pooled_features_are_means_over_time(norm: Any, checkpoint: Callable[..., Path]) -> None:
    waveforms = clips([16_000, 9_000])
    for layer, layers in ((2, 1), ("all", LAYERS + 1)):
        encoder = torch_encoder(checkpoint("wav2vec2-layer"), layer)
        for states, (features, extrema) in zip(
            encoder.encode(waveforms), encoder.features(waveforms, norm, "mean"), strict=True
        ):
            assert features.shape == (layers, 32)
            assert extrema.size == 0
            scaled = normalise(states, norm)[0]
            np.testing.assert_allclose(features, scaled.mean(axis=1), atol=1e-6)
            stats, _ = encoder.features([waveforms[states.shape[1] < 40]], norm, "stats")[0]
            assert stats.shape == (layers, 64)
            np.testing.assert_allclose(stats[:, :32], scaled.mean(axis=1), atol=1e-4)
            np.testing.assert_allclose(stats[:, 32:], scaled.std(axis=1), atol=1e-4)


def test_seeded_weights_follow_the_seed_alone() -> None:
    torch.manual_seed(123)
    first = load_encoder("random-mini", 4, backend="torch", seed=0)
    torch.rand(17)
    again = load_encoder("random-mini", 4, backend="torch", seed=0)
    other = load_encoder("random-mini", 4, backend="torch", seed=1)
    assert first.weights == again.weights != other.weights
    assert not first.trained
    waveforms = clips([16_000])
    np.testing.assert_array_equal(first.encode(waveforms)[0], again.encode(waveforms)[0])
    assert np.abs(first.encode(waveforms)[0] - other.encode(waveforms)[0]).max() > 0.01


def test_loading_leaves_the_random_states_alone(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint("wav2vec2-group")
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the legacy state is what must not change
    before, legacy = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    for name in ("random-mini", folder):
        torch_encoder(name, 2, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002


def test_weights_tell_checkpoints_apart(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = save(seeded_model(tiny_config("wavlm-layer")), tmp_path / "changed")
    assert torch_encoder(folder, 2).weights == torch_encoder(checkpoint("wavlm-layer"), 2).weights
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layers.0.attention.q_proj.weight"][0, 0] += 1e-6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch_encoder(folder, 2).weights != torch_encoder(checkpoint("wavlm-layer"), 2).weights


# --- full size ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heavy() -> Iterator[Path]:
    """A folder for checkpoints of hundreds of megabytes, gone after this module."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_wav2vec2_base_at_full_size(heavy: Path) -> None:
    model = seeded_model(transformers.Wav2Vec2Config(), transformers.AutoModelForCTC, gain=1.0)
    assert 94e6 < sum(p.numel() for p in model.parameters()) < 96e6
    folder = save(model, heavy / "base")
    (folder / "ctc").touch()
    clip = clips([48_000])
    (wanted,) = oracle(folder, clip)
    middle, logits = torch_encoder(folder, None), torch_encoder(folder, "logits")
    assert middle.layer == 6
    (states,), (output,) = middle.encode(clip), logits.encode(clip)
    assert states.shape == (1, 149, 768)
    assert output.shape == (1, 149, 32)
    assert_close(states, wanted.hidden_states[6])
    assert_close(output, wanted.logits)


@pytest.fixture(scope="module")
def torch_home(heavy: Path) -> Path:
    """A TORCH_HOME with seeded weights where torchaudio's bundle looks for the real ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        weights = torchaudio.models.wav2vec2_base(aux_num_out=32).state_dict()
    folder = heavy / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(weights, folder / "wav2vec2_fairseq_base_ls960_asr_ls960.pth")
    return heavy / "torch"


def test_torchaudio_bundle(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    model = torchaudio.pipelines.WAV2VEC2_ASR_BASE_960H.get_model().eval()
    short, long = clips([16_000, 48_000])
    with torch.inference_mode():
        wanted = {len(w): model(torch.from_numpy(w)[None])[0] for w in (short, long)}
        layers, _ = model.extract_features(torch.from_numpy(long)[None])
    logits = torch_encoder("torchaudio-base-960h", "logits")
    assert logits.trained
    for waveform, states in zip((long, short), logits.encode([long, short]), strict=True):
        assert_close(states, wanted[len(waveform)])
    assert logits.encode([long])[0].shape == (1, 149, 29)
    sixth = torch_encoder("torchaudio-base-960h", 6).encode([long])[0]
    assert_close(sixth, layers[5])
    everything = torch_encoder("torchaudio-base-960h", "all").encode([long])[0]
    assert_close(everything, torch.cat(layers))
    with pytest.raises(EncoderError, match="no layer 0; it has 1 to 12"):
        torch_encoder("torchaudio-base-960h", 0)


def test_torchaudio_bundle_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in [name for name in os.environ if name.lower() == "no_proxy"]:
        monkeypatch.delenv(name)
    for name in ("https_proxy", "HTTPS_PROXY"):  # nobody listens there
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(EncoderError, match=r"WAV2VEC2_ASR_BASE_960H is neither.*--encoder mini"):
        torch_encoder("torchaudio-base-960h", "logits")


def test_torchaudio_bundle_with_a_damaged_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "wav2vec2_fairseq_base_ls960_asr_ls960.pth").write_bytes(b"half a download")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(EncoderError, match="torchaudio-base-960h: WAV2VEC2_ASR_BASE_960H"):
        torch_encoder("torchaudio-base-960h", "logits")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampling_rate": 8000}, "wants 8000 Hz, and clips are read at 16000"),
        ({"sampling_rate": 44_100}, "wants 44100 Hz"),
        ({"feature_extractor_type": "ClapFeatureExtractor"}, "gives no waveforms"),
        (None, "can't be read"),
    ],
)
def test_item_17_a_feature_extractor_of_other_input_is_refused(
    changes: dict[str, Any] | None, said: str, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "encoder")
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    file.write_text("{" if changes is None else json.dumps({**settings, **changes}))
    with pytest.raises(EncoderError, match=said):
        load_encoder(str(folder), backend="torch")


def test_code_of_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    folder = tmp_path / "dasheng"
    folder.mkdir()
    config = {"model_type": "dasheng", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\n")
    with pytest.raises(EncoderError, match="needs code of its own from the hub, which is never"):
        load_encoder(str(folder))
    assert not (tmp_path / "ran").exists()
