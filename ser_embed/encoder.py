"""Frozen speech encoders of the wav2vec2 family, and the features they give.

An encoder is named by a registry entry (`mini`, `wav2vec2-base`, `random-base`, ...), a hub id
or a folder in transformers' format. Layer N is transformers' `hidden_states[N]`: 0 is what goes
into the first transformer layer, N what comes out of the N-th. The last one is taken after the
final norm of the encoders that have one (`last_hidden_state`), as transformers 4 did and 5
doesn't. Layers above the last one asked for are not run.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
import numpy as np
import torch
import torchaudio
import transformers
from torch import nn

from ser_embed.audio import MIN_SAMPLES
from ser_embed.backends import BackendName, Precision, make_backend
from ser_embed.bundled import BUNDLED_ENCODERS
from ser_embed.errors import EncoderError
from ser_embed.features import Layer, Norm, Pool, normalise

__all__ = ["ENCODERS", "Encoder", "EncoderSpec", "load_encoder"]

log = logging.getLogger(__name__)

_FAMILIES = ("wav2vec2", "hubert", "wavlm")


@dataclass(frozen=True)
class EncoderSpec:
    """Where an encoder comes from.

    Attributes:
        source: `bundled` (a folder that ships), `hub` (Hugging Face), `seeded` (untrained
            weights drawn from a seed) or `torchaudio` (one of its bundles).
        location: Folder name, hub id, configuration name or bundle name.
        licence: Licence of the weights.
        about: One line for people.
    """

    source: Literal["bundled", "hub", "seeded", "torchaudio"]
    location: str
    licence: str
    about: str


ENCODERS: dict[str, EncoderSpec] = {
    "mini": EncoderSpec("bundled", "mini", "MIT", "small, ships with the project, no network"),
    "random-mini": EncoderSpec("seeded", "mini", "MIT", "control: mini's shape, untrained"),
    "random-base": EncoderSpec("seeded", "base", "MIT", "control: base's shape, untrained"),
    "wav2vec2-base": EncoderSpec(
        "hub", "facebook/wav2vec2-base", "Apache-2.0", "95 M, 960 h, self-supervised"),
    "wav2vec2-base-960h": EncoderSpec(
        "hub", "facebook/wav2vec2-base-960h", "Apache-2.0", "95 M, ASR; the paper's"),
    "wav2vec2-large": EncoderSpec(
        "hub", "facebook/wav2vec2-large", "Apache-2.0", "317 M, 960 h, self-supervised"),
    "wav2vec2-large-960h-lv60-self": EncoderSpec(
        "hub", "facebook/wav2vec2-large-960h-lv60-self", "Apache-2.0", "317 M, fine-tuned for ASR"),
    "xlsr-53": EncoderSpec(
        "hub", "facebook/wav2vec2-large-xlsr-53", "Apache-2.0", "317 M, 53 languages"),
    "xlsr-53-english": EncoderSpec(
        "hub", "jonatasgrosman/wav2vec2-large-xlsr-53-english", "Apache-2.0",
        "317 M, fine-tuned for English ASR"),
    "hubert-base": EncoderSpec("hub", "facebook/hubert-base-ls960", "Apache-2.0", "95 M, 960 h"),
    "hubert-large": EncoderSpec(
        "hub", "facebook/hubert-large-ll60k", "Apache-2.0", "317 M, 60 kh"),
    "wavlm-base-plus": EncoderSpec(
        "hub", "microsoft/wavlm-base-plus", "CC BY-SA 3.0", "95 M, 94 kh"),
    "wavlm-large": EncoderSpec("hub", "microsoft/wavlm-large", "CC BY-SA 3.0", "317 M, 94 kh"),
    "torchaudio-base-960h": EncoderSpec(
        "torchaudio", "WAV2VEC2_ASR_BASE_960H", "MIT",
        "the paper's weights through torchaudio (its CTC head now keeps 29 of 32 outputs)"),
}  # fmt: skip
"""The encoders that have a name."""


# --- networks --------------------------------------------------------------------------------


class _HiddenStates(nn.Module):
    """A transformers model cut down to the layers asked for: (B, S) -> (B, L, T, D)."""

    def __init__(self, model: Any, layer: Layer) -> None:
        super().__init__()
        self.all_layers = layer == "all"
        self.logits = layer == "logits"
        if isinstance(layer, int):
            stack = model.encoder
            if layer < len(stack.layers) and getattr(model.config, "do_stable_layer_norm", False):
                # The final norm belongs to the last layer alone.
                stack.layer_norm = nn.Identity()
            stack.layers = stack.layers[:layer]
        self.model = model

    def forward(self, waveforms: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        out = self.model(
            waveforms,
            attention_mask=None if mask is None else mask.long(),
            output_hidden_states=self.all_layers,
        )
        if self.all_layers:
            states = (*out.hidden_states[:-1], out.last_hidden_state)
            return torch.stack(states, dim=1)  # (B, L, T, D)
        return (out.logits if self.logits else out.last_hidden_state).unsqueeze(1)  # (B, 1, T, D)


class _TorchaudioStates(nn.Module):
    """The same for a torchaudio bundle, whose layers count from 1."""

    def __init__(self, model: Any, layer: Layer) -> None:
        super().__init__()
        self.model, self.layer = model, layer

    def forward(self, waveforms: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        if self.layer == "logits":
            return self.model(waveforms)[0].unsqueeze(1)
        wanted = None if self.layer == "all" else self.layer
        states, _ = self.model.extract_features(waveforms, num_layers=wanted)
        return torch.stack(states if self.layer == "all" else states[-1:], dim=1)


def _base_config() -> transformers.PretrainedConfig:
    return transformers.Wav2Vec2Config()  # its defaults are wav2vec2-base's


def _mini_config() -> transformers.PretrainedConfig:
    return transformers.AutoConfig.from_pretrained(BUNDLED_ENCODERS / "mini")


_SEEDED: Mapping[str, Callable[[], transformers.PretrainedConfig]] = {
    "base": _base_config, "mini": _mini_config,
}  # fmt: skip


# --- loading ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Loaded:
    model: nn.Module
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    n_layers: int
    masks: bool  # whether padding with a mask leaves the output unchanged
    do_normalize: bool
    trained: bool


def _of_transformers(model: Any, do_normalize: bool, trained: bool) -> _Loaded:
    config = model.config
    return _Loaded(
        model, tuple(config.conv_kernel), tuple(config.conv_stride), config.num_hidden_layers,
        # Group norm runs over time, so zeros beside a clip change the clip's own frames
        # (measured: 21 % relative error with a mask, 41 % without). Layer norm doesn't.
        masks=config.feat_extract_norm == "layer", do_normalize=do_normalize, trained=trained,
    )  # fmt: skip


def _load_seeded(config: transformers.PretrainedConfig, layer: Layer, seed: int) -> _Loaded:
    kind = transformers.AutoModelForCTC if layer == "logits" else transformers.AutoModel
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # unlike torch.manual_seed, the CPU's alone
        model = kind.from_config(config)
    return _of_transformers(model, do_normalize=True, trained=False)


def _load_pretrained(name: str, source: str, layer: Layer) -> _Loaded:
    kind = transformers.AutoModelForCTC if layer == "logits" else transformers.AutoModel
    try:
        local = _is_local(source)
        config = transformers.AutoConfig.from_pretrained(source, local_files_only=local)
        if config.model_type not in _FAMILIES:
            raise EncoderError(
                f"{name}: a {config.model_type!r} model; supported are {', '.join(_FAMILIES)}"
            )
        if getattr(config, "add_adapter", False):
            raise EncoderError(f"{name}: has an adapter that shortens time, which isn't supported")
        model, info = kind.from_pretrained(
            source, output_loading_info=True, local_files_only=local
        )
    except EncoderError:
        raise
    except Exception as error:  # of JSON, pickle, safetensors, the network: whatever is wrong
        raise EncoderError(_cannot_load(name, source, error)) from error
    missing = [key for key in info["missing_keys"] if "masked_spec_embed" not in key]
    if missing:
        no_head = "has no CTC head, so --layer logits can't be"
        what = no_head if layer == "logits" else "is incomplete"
        raise EncoderError(
            f"{name}: the checkpoint {what}: it lacks {len(missing)} tensors, {missing[0]} among "
            "them, which would be random"
        )
    # transformers keeps a checkpoint's own type, and half precision overflows.
    return _of_transformers(model.float(), _do_normalize(source, local), trained=True)


def _is_local(source: str) -> bool:
    """Whether a checkpoint is a folder, or in the hub's cache with the hub out of reach.

    The hub is asked once: left to itself its client tries for half a minute, even for optional
    files, before it admits that there is no network.
    """
    if Path(source).is_dir():
        return True
    try:
        url = huggingface_hub.hf_hub_url(source, "config.json")
        huggingface_hub.get_hf_file_metadata(url, timeout=10)
    except Exception:
        if huggingface_hub.try_to_load_from_cache(source, "config.json") is None:
            raise
        return True
    return False


def _do_normalize(source: str, local: bool) -> bool:
    try:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(
            source, local_files_only=local
        )
    except (OSError, ValueError):
        log.warning("%s: no preprocessor_config.json; its input is scaled to unit variance", source)
        return True
    return bool(extractor.do_normalize)


def _cannot_load(name: str, source: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(source).is_dir():
        return f"{name}: not a loadable encoder folder ({reason})"
    return (
        f"{name}: {source} is neither in the local cache nor to be had from the hub ({reason}). "
        "Without a network use the bundled encoder, --encoder mini, or the folder of a checkpoint "
        f"in transformers' format. Encoders with a name: {', '.join(ENCODERS)}"
    )


def _load_torchaudio(name: str, bundle_name: str) -> _Loaded:
    bundle = getattr(torchaudio.pipelines, bundle_name)
    try:
        model = bundle.get_model(dl_kwargs={"weights_only": True, "progress": False})
    except Exception as error:  # of the network, the disk, the unpickler
        raise EncoderError(_cannot_load(name, bundle_name, error)) from error
    shapes = bundle._params["extractor_conv_layer_config"]
    return _Loaded(
        model, tuple(k for _, k, _ in shapes), tuple(s for _, _, s in shapes),
        bundle._params["encoder_num_layers"], masks=False, do_normalize=False, trained=True,
    )  # fmt: skip


def _load(name: str, layer: Layer, seed: int) -> tuple[_Loaded, str]:
    spec = ENCODERS.get(name)
    if spec is None:
        is_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
        if not Path(name).is_dir() and not is_hub_id:
            raise EncoderError(
                f"no encoder {name!r}: neither a name ({', '.join(ENCODERS)}), a hub id like "
                "facebook/wav2vec2-base, nor a folder"
            )
        return _load_pretrained(name, name, layer), "transformers"
    if spec.source == "torchaudio":
        return _load_torchaudio(name, spec.location), "torchaudio"
    if spec.source == "hub":
        return _load_pretrained(name, spec.location, layer), "transformers"
    folder = BUNDLED_ENCODERS / spec.location
    if spec.source == "bundled" and (folder / "model.safetensors").is_file():
        return _load_pretrained(name, str(folder), layer), "transformers"
    if spec.source == "bundled":
        log.warning("encoder %s: this version ships it untrained, with seeded weights", name)
    return _load_seeded(_SEEDED[spec.location](), layer, seed), "transformers"


def load_encoder(
    name: str = "mini",
    layer: Layer | None = None,
    *,
    backend: BackendName = "auto",
    precision: Precision = "fp32",
    seed: int = 0,
) -> "Encoder":
    """Load an encoder, frozen, in evaluation mode, cut to the layer asked for.

    Args:
        name: Key of `ENCODERS`, hub id, or folder in transformers' format.
        layer: Hidden layer, `all`, `logits`, or None for the middle layer: the upper layers of
            a self-supervised encoder serve emotion worse, those of one fine-tuned for speech
            recognition far worse (Pepino et al. 2021).
        backend: `torch`, `openvino`, or `auto` by hardware.
        precision: Arithmetic of the encoder.
        seed: Seed of the weights of untrained encoders; ignored by the others.

    Raises:
        EncoderError: Not found, not loadable, incomplete, or no such layer.
        MissingExtra: The backend isn't installed.
    """
    loaded, library = _load(name, layer if layer is not None else 0, seed)
    if layer is None:
        layer = loaded.n_layers // 2
    first = 1 if library == "torchaudio" else 0
    if layer not in ("all", "logits", *range(first, loaded.n_layers + 1)):
        raise EncoderError(
            f"{name}: no layer {layer}; it has {first} to {loaded.n_layers}, 'all' and 'logits'"
        )
    wrap = _TorchaudioStates if library == "torchaudio" else _HiddenStates
    return Encoder(name, layer, loaded, wrap(loaded.model, layer), backend, precision)


def _fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 over a model's tensors, their names and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if "masked_spec_embed" in name:  # only training uses it; a checkpoint may lack it
            continue
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    return digest.hexdigest()


# --- the encoder -----------------------------------------------------------------------------


class Encoder:
    """A frozen encoder: waveforms in, hidden states out.

    Attributes:
        name: What it was asked for by.
        layer: Layer that it gives.
        weights: SHA-256 of its weights.
        trained: False for seeded weights.
        masks: Whether clips of different lengths may share a padded batch. If not, only clips
            of exactly equal length do.
    """

    def __init__(
        self, name: str, layer: Layer, loaded: _Loaded, network: nn.Module,
        backend: BackendName, precision: Precision,
    ) -> None:  # fmt: skip
        self.name, self.layer = name, layer
        self.precision: Precision = precision
        self.trained, self.masks = loaded.trained, loaded.masks
        self.do_normalize = loaded.do_normalize
        self.kernels, self.strides = loaded.kernels, loaded.strides
        self.weights = _fingerprint(loaded.model)
        network.requires_grad_(False)
        self.backend = make_backend(backend, network, precision)

    def n_frames(self, n_samples: int) -> int:
        """Return how many frames a clip of so many samples gives (48,000 samples: 149)."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            n_samples = (n_samples - kernel) // stride + 1
        return max(0, n_samples)

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Encode clips as one batch, or as one per length where the encoder can't mask.

        Args:
            waveforms: float32 arrays of shape (n_samples,) at 16 kHz, 400 samples or more each.

        Returns:
            For each clip its hidden states, float32 of shape (L, T, D); L is 1 unless all
            layers were asked for.

        Raises:
            EncoderError: A clip is under 400 samples.
        """
        for waveform in waveforms:
            if len(waveform) < MIN_SAMPLES:
                raise EncoderError(f"a clip of {len(waveform)} samples; {MIN_SAMPLES} are needed")
        ready = [_unit_variance(w) if self.do_normalize else w for w in waveforms]
        groups: dict[int, list[int]] = {}
        for i, waveform in enumerate(ready):
            groups.setdefault(0 if self.masks else len(waveform), []).append(i)
        states: list[np.ndarray] = [np.empty(0)] * len(ready)
        for members in groups.values():
            for i, array in zip(members, self._run([ready[i] for i in members]), strict=True):
                states[i] = array
        return states

    def _run(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        lengths = [len(w) for w in waveforms]
        batch = np.zeros((len(waveforms), max(lengths)), dtype=np.float32)
        for row, waveform in zip(batch, waveforms, strict=True):
            row[: len(waveform)] = waveform
        mask = None
        if min(lengths) < max(lengths):
            mask = np.arange(max(lengths)) < np.asarray(lengths)[:, None]
        states = self.backend(batch, mask)  # (B, L, T, D)
        return [array[:, : self.n_frames(n)] for array, n in zip(states, lengths, strict=True)]

    def features(
        self, waveforms: Sequence[np.ndarray], norm: Norm, pool: Pool
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Encode, normalise and pool clips: what a store keeps and a head is trained on.

        Returns:
            For each clip (features, range). Features are float32 (T, D), or (L, T, D) for all
            layers, or (L, D) pooled; range is what undoes the normalisation, (T, 2) or (L, T, 2),
            empty when pooled or not normalised.
        """
        results = []
        for states in self.encode(waveforms):
            features, extent = normalise(states, norm)
            if pool == "mean":
                results.append((features.mean(axis=1), np.empty(0, dtype=np.float32)))
            elif self.layer == "all":
                results.append((features, extent))
            else:
                results.append((features[0], extent[0] if extent.size else extent))
        return results


def _unit_variance(waveform: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance, as transformers' feature extractor does (epsilon 1e-7)."""
    return (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
