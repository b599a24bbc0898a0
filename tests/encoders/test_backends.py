"""The backends against each other, and how one is chosen."""

import platform
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from ser_embed.encoders import backends as backends
from ser_embed.encoders.backends import choose_backend, make_backend
from ser_embed.encoders.frozen import load_encoder
from ser_embed.encoders.registry import BackendName, Precision
from ser_embed.errors import EncoderError

openvino = pytest.importorskip("openvino", reason="needs the extra 'openvino'")

# torch's own remark on the mask that transformers gives WavLM's attention
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")

GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2-group": ("wav2vec2", GROUP),
    "wav2vec2-layer": ("wav2vec2", LAYER),
    "hubert-group": ("hubert", GROUP),
    "wavlm-layer": ("wavlm", LAYER),
    "data2vec": ("data2vec-audio", {"conv_bias": True, "num_conv_pos_embeddings": 5}),
}
BATCHES = ([16_000] * 2, [16_000], [48_000] * 3, [400], [12_345] * 5)
RAGGED = ([16_000, 9_000], [48_000, 400, 30_000], [9_000, 8_999], [20_000] * 2)


def clips(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.1, n).astype(np.float32) for n in lengths]


def deviation(ours: np.ndarray, reference: np.ndarray) -> float:
    """Relative deviation of one clip's states."""
    assert ours.shape == reference.shape
    assert ours.dtype == np.float32
    return float(np.linalg.norm(ours - reference) / np.linalg.norm(reference))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return a function that saves a family's tiny CTC checkpoint, once."""
    base = tmp_path_factory.mktemp("checkpoints")

    def _checkpoint(family: str) -> str:
        folder = base / family
        if not folder.exists():
            model_type, norms = FAMILIES[family]
            config = transformers.AutoConfig.for_model(
                model_type, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
                intermediate_size=48, conv_dim=(16,) * 7,
                num_conv_pos_embedding_groups=4, initializer_range=0.1,
                **{"num_conv_pos_embeddings": 16, **norms},
            )  # fmt: skip
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                transformers.AutoModelForCTC.from_config(config).save_pretrained(folder)
            transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
        return str(folder)

    return _checkpoint


def compare(
    folder: str, layer: Any, batches: tuple[list[int], ...], precision: Precision, limit: float,
    backend: BackendName = "openvino",
) -> None:  # fmt: skip
    reference = load_encoder(folder, layer, backend="torch")
    encoder = load_encoder(folder, layer, backend=backend, precision=precision)
    assert encoder.backend.name == backend
    for seed, lengths in enumerate(batches):
        waveforms = clips(lengths, seed)
        wanted, given = reference.encode(waveforms), encoder.encode(waveforms)
        for ours, truth in zip(given, wanted, strict=True):
            assert deviation(ours, truth) < limit


# --- one against the other -------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_openvino_equals_torch(family: str, checkpoint: Callable[[str], str]) -> None:
    """One conversion serves every batch size and length, with and without masks."""
    batches = (*BATCHES, *RAGGED) if family.startswith("wav2vec2") else (BATCHES[4], RAGGED[1])
    compare(checkpoint(family), 2, batches, "fp32", 1e-4)
    encoder = load_encoder(checkpoint(family), 2, backend="openvino")
    waveforms = clips([48_000, 400, 30_000])
    for waveform, states in zip(waveforms, encoder.encode(waveforms), strict=True):
        (alone,) = encoder.encode([waveform])
        assert np.abs(states - alone).max() < 1e-5 * np.abs(alone).max()


@pytest.mark.parametrize(
    ("family", "layer", "batches"),
    [
        ("wav2vec2-group", 0, (BATCHES[0], BATCHES[2])),
        ("hubert-group", "all", (BATCHES[0], RAGGED[0])),
        ("wav2vec2-layer", "all", RAGGED[:2]),
        ("wav2vec2-layer", "logits", RAGGED[:2]),
    ],
)
def test_openvino_equals_torch_on_other_layers(
    family: str, layer: Any, batches: tuple[list[int], ...], checkpoint: Callable[[str], str]
) -> None:
    compare(checkpoint(family), layer, batches, "fp32", 1e-4)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize(
    ("family", "lengths"), [("wav2vec2-group", RAGGED[0]), ("wav2vec2-layer", RAGGED[0])]
)
def test_bf16_is_near(
    family: str, lengths: list[int], backend: BackendName, checkpoint: Callable[[str], str]
) -> None:
    compare(checkpoint(family), 2, (lengths,), "bf16", 2e-2, backend)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_bf16_is_near_on_the_bundled_encoder(backend: BackendName) -> None:
    compare("mini", None, ([48_000] * 2,), "bf16", 2e-2, backend)


def test_bf16_is_another_arithmetic(checkpoint: Callable[[str], str]) -> None:
    """So that the closeness above can't come from an option that is passed over."""
    waveforms = clips([16_000])
    folder = checkpoint("wav2vec2-layer")
    (exact,) = load_encoder(folder, 2, backend="torch").encode(waveforms)
    (coarse,) = load_encoder(folder, 2, backend="torch", precision="bf16").encode(waveforms)
    assert deviation(coarse, exact) > 1e-4


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_threads_may_share_an_encoder(
    backend: BackendName, checkpoint: Callable[[str], str]
) -> None:
    encoder = load_encoder(checkpoint("wav2vec2-group"), 2, backend=backend)
    waveforms = clips([16_000 + 800 * (i % 7) for i in range(40)])
    alone = [encoder.encode([waveform])[0] for waveform in waveforms]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda waveform: encoder.encode([waveform])[0], waveforms))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_results_are_the_callers_own(
    backend: BackendName, checkpoint: Callable[[str], str]
) -> None:
    """An engine that hands out its buffer would overwrite them with the next batch."""
    before = torch.get_rng_state()
    encoder = load_encoder(checkpoint("wav2vec2-group"), 2, backend=backend)
    (first,) = encoder.encode(clips([16_000], seed=1))
    kept = first.copy()
    (second,) = encoder.encode(clips([16_000], seed=2))
    assert deviation(second, first) > 1e-3
    np.testing.assert_array_equal(first, kept)
    first += 1
    (again,) = encoder.encode(clips([16_000], seed=1))
    assert again.tobytes() == kept.tobytes()
    assert torch.equal(torch.get_rng_state(), before)


def test_openvino_converts_a_half_precision_checkpoint_to_fp32(
    checkpoint: Callable[[str], str], tmp_path: Path
) -> None:
    folder = Path(checkpoint("wav2vec2-layer"))
    model = transformers.AutoModelForCTC.from_pretrained(folder)
    model.half().save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    compare(str(tmp_path), 2, ([16_000, 9_000],), "fp32", 1e-4)


# --- keeping what was converted --------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SER_EMBED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


def states_of(name: str, lengths: list[int]) -> list[np.ndarray]:
    return load_encoder(name, 2, backend="openvino").encode(clips(lengths))


@pytest.mark.parametrize("lengths", [[16_000] * 2, [16_000, 9_000]])
def test_a_converted_network_is_kept_and_gives_the_same(
    checkpoint: Callable[[str], str], cache: Path, monkeypatch: pytest.MonkeyPatch,
    lengths: list[int],
) -> None:  # fmt: skip
    name = checkpoint("wav2vec2-layer")
    first = states_of(name, lengths)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(openvino, "convert_model", None)  # a conversion would raise
    for one, other in zip(first, states_of(name, lengths), strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_layer_and_weight_has_a_network_of_its_own(
    checkpoint: Callable[[str], str], cache: Path, tmp_path: Path
) -> None:
    name = checkpoint("wav2vec2-layer")
    changed = transformers.AutoModelForCTC.from_pretrained(name)
    with torch.no_grad():
        changed.wav2vec2.encoder.layers[0].feed_forward.output_dense.bias += 1
    changed.save_pretrained(tmp_path / "changed")
    activation = transformers.AutoModelForCTC.from_pretrained(name)
    activation.config.hidden_act = "relu"  # the same weights
    activation.save_pretrained(tmp_path / "activation")
    for folder in (name, str(tmp_path / "changed"), str(tmp_path / "activation")):
        for layer in (1, 2):
            (ours,) = load_encoder(folder, layer, backend="openvino").encode(clips([16_000]))
            (theirs,) = load_encoder(folder, layer, backend="torch").encode(clips([16_000]))
            assert deviation(ours, theirs) < 1e-4
    assert len(list(cache.iterdir())) == 6


@pytest.mark.parametrize("file", ["network.bin", "network.xml", "digests.json"])
def test_a_damaged_copy_is_made_anew(
    checkpoint: Callable[[str], str], cache: Path, file: str
) -> None:
    name = checkpoint("wav2vec2-group")
    first = states_of(name, [16_000])
    (place,) = cache.iterdir()
    whole = (place / file).read_bytes()
    for damaged in (whole[:-1], b"", bytes([whole[0] ^ 1]) + whole[1:], None):
        if damaged is None:
            (place / file).unlink()
        else:
            (place / file).write_bytes(damaged)
        np.testing.assert_array_equal(states_of(name, [16_000])[0], first[0])
        if file == "network.bin":
            assert (place / file).read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    checkpoint: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SER_EMBED_CACHE", str(tmp_path / "file"))
    assert states_of(checkpoint("wav2vec2-group"), [16_000])[0].shape == (1, 49, 32)


# --- choosing --------------------------------------------------------------------------------


def test_auto_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for machine, wanted in (("x86_64", "openvino"), ("AMD64", "openvino"), ("arm64", "torch")):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        assert choose_backend("auto") == wanted
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert choose_backend("auto") == "torch"


def test_a_backend_that_is_named_is_taken() -> None:
    assert choose_backend("torch") == "torch"
    assert choose_backend("openvino") == "openvino"
    network = torch.nn.Identity()
    assert isinstance(make_backend("torch", network, "fp32"), backends.TorchBackend)
    assert isinstance(make_backend("openvino", network, "fp32"), backends.OpenVINOBackend)


def test_a_backend_that_is_not_there() -> None:
    with pytest.raises(
        EncoderError, match="no backend 'tensorrt'; there are auto, torch, openvino"
    ):
        make_backend("tensorrt", torch.nn.Identity(), "fp32")  # type: ignore[arg-type]


WITHOUT_OPENVINO = """
import importlib.machinery

find = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, path=None, target=None:
        None if name.split(".")[0] == "openvino" else find(name, path, target)
)
from ser_embed.encoders.backends import choose_backend
from ser_embed.encoders.frozen import load_encoder
from ser_embed.errors import MissingExtra
print(choose_backend("auto"), load_encoder("random-mini", 1).backend.name)
try:
    load_encoder("random-mini", 1, backend="openvino")
except MissingExtra as error:
    print(error)
"""


def test_without_openvino(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run("-c", WITHOUT_OPENVINO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "torch torch",
        "openvino is not installed: pip install 'ser_embed[openvino]'",
    ]


@pytest.mark.parametrize(
    ("groups", "width", "merged"), [(16, 16, 8), (16, 48, 16), (8, 4, 1), (6, 16, 3), (1, 16, 1)]
)
def test_narrow_groups_are_merged_without_a_change(groups: int, width: int, merged: int) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = torch.nn.Conv1d(groups * width, groups * 24, 7, padding=3, groups=groups).requires_grad_(
        False
    )
    parent = torch.nn.Sequential(torch.nn.utils.parametrizations.weight_norm(conv, dim=2))
    noise = torch.randn(2, groups * width, 40, generator=generator)
    before = parent(noise)
    backends._widen_groups(parent)
    assert parent[0].groups == merged  # type: ignore[union-attr]
    torch.testing.assert_close(parent(noise), before)
