"""Where encoders come from: names, hub ids, folders, seeds; loaded, checked, fingerprinted.

A checkpoint that lacks a tensor is refused: transformers would draw it at random and carry on.
"""

import errno
import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
import numpy as np
import torch
import torchaudio
import transformers
from safetensors import safe_open
from torch import nn
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ser_embed.audio import SAMPLE_RATE
from ser_embed.bundled import BUNDLED_ENCODERS, changed_files
from ser_embed.encoders.logmel import HOP, WINDOW, LogMel
from ser_embed.encoders.registry import ENCODERS, Layer
from ser_embed.encoders.whisper import HOP_SAMPLES, WINDOW_SAMPLES, WhisperStates
from ser_embed.errors import EncoderError

__all__ = ["Checkpoint", "fingerprint", "load_checkpoint"]

log = logging.getLogger(__name__)

_FAMILIES = (
    "wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat", "whisper",
)  # fmt: skip


# --- loading ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model and what has to be known to feed it.

    Attributes:
        model: transformers' or torchaudio's model, all layers, or the spectrogram.
        n_frames: From a clip's samples to its frames.
        n_layers: Number of transformer layers.
        do_normalize: Whether the input is scaled to zero mean and unit variance.
        trained: False for seeded weights.
        library: Whose model it is.
        facts: What else changes its output: of the configuration.
    """

    model: nn.Module
    n_frames: Callable[[int], int]
    n_layers: int
    do_normalize: bool
    trained: bool
    library: Literal["transformers", "whisper", "torchaudio", "spectrum"] = "transformers"
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def configuration(self) -> str:
        """SHA-256 of all but the weights that changes the output."""
        known = {"library": self.library, "do_normalize": self.do_normalize, **self.facts}
        text = json.dumps(known, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


# What a configuration says of training, of outputs that aren't taken and of itself.
_IRRELEVANT = re.compile(
    r"_.*|transformers_version|architectures|torch_dtype|dtype|.*dropout.*|.*dropped.*|layerdrop|"
    r"mask_.*|apply_spec_augment|ctc_.*|gradient_checkpointing|.*2label|label2.*|num_labels|"
    r"problem_type|initializer_.*|return_dict|output_.*|(bos|eos|pad)_token_id|"
    r"use_weighted_layer_sum|.*proj_.*size|tdnn_.*|xvector_.*|num_negatives|contrastive_.*|"
    r"diversity_.*|.*codevector.*|tokenizer_class|task_specific_params|finetuning_task|replace_.*"
)


def _facts(config: Any) -> dict[str, Any]:
    """Return what differs from the defaults in a configuration and may change hidden states.

    Without the defaults, so that a new version of transformers that has more of them changes
    nothing.
    """
    return {
        "model_type": config.model_type,
        **{k: v for k, v in config.to_diff_dict().items() if not _IRRELEVANT.fullmatch(k)},
    }


def _after_convolutions(kernels: Sequence[int], strides: Sequence[int]) -> Callable[[int], int]:
    """Return how many frames convolutions without padding make of so many samples."""

    def n_frames(n_samples: int) -> int:
        for kernel, stride in zip(kernels, strides, strict=True):
            n_samples = (n_samples - kernel) // stride + 1
        return max(0, n_samples)

    return n_frames


def _of_transformers(model: Any, do_normalize: bool, trained: bool) -> Checkpoint:
    config = model.config
    return Checkpoint(
        model, _after_convolutions(config.conv_kernel, config.conv_stride),
        config.num_hidden_layers,
        do_normalize=do_normalize, trained=trained,
        facts=_facts(config),
    )  # fmt: skip


def _of_whisper(model: Any) -> Checkpoint:
    config = model.config  # which is mostly about the decoder
    known = ("model_type", "encoder_attention_heads", "activation_function")
    return Checkpoint(
        model, WhisperStates.n_frames, len(model.layers), do_normalize=False,
        trained=True, library="whisper", facts={fact: getattr(config, fact) for fact in known},
    )  # fmt: skip


def _load_seeded(shape: str, layer: Layer, seed: int) -> Checkpoint:
    kind = transformers.AutoModelForCTC if layer == "logits" else transformers.AutoModel
    if shape == "base":
        config: Any = transformers.Wav2Vec2Config()  # its defaults are wav2vec2-base's
    else:
        config = transformers.AutoConfig.from_pretrained(BUNDLED_ENCODERS / shape)
    torch.default_generator.manual_seed(seed)  # unlike torch.manual_seed, the CPU's alone
    model = kind.from_config(config)
    return _of_transformers(model, do_normalize=True, trained=False)


def _load_pretrained(name: str, source: str, layer: Layer) -> Checkpoint:
    transformers.utils.logging.disable_progress_bar()  # of the seconds that loading takes
    try:
        local = _is_local(source)
        config = transformers.AutoConfig.from_pretrained(
            source, local_files_only=local, trust_remote_code=False
        )
        kind, options = _class_of(name, config, layer)
        model, info = kind.from_pretrained(
            source, output_loading_info=True, local_files_only=local, **options
        )
    except EncoderError:
        raise
    except Exception as error:  # of JSON, pickle, safetensors, the network: whatever is wrong
        raise EncoderError(_cannot_load(name, source, error)) from error
    missing = sorted(key for key in info["missing_keys"] if "masked_spec_embed" not in key)
    if missing:
        no_head = "has no CTC head, so --layer logits can't be"
        what = no_head if layer == "logits" else "is incomplete"
        raise EncoderError(
            f"{name}: the checkpoint {what}: it lacks {len(missing)} tensors, {missing[0]} among "
            "them, which would be random"
        )
    extractor = _feature_extractor(name, source, local, config.model_type)
    model = model.float()  # transformers keeps a checkpoint's own type; half precision overflows
    if config.model_type == "whisper":
        _check_whisper(name, source, config, extractor)
        return _of_whisper(model)
    return _of_transformers(model, bool(getattr(extractor, "do_normalize", True)), trained=True)


class _WhisperEncoder(WhisperEncoder):
    """Whisper's encoder out of a whole checkpoint, whose other tensors aren't remarked on."""

    _keys_to_ignore_on_load_unexpected = [r"^(model\.)?decoder\.", r"^proj_out\."]  # noqa: RUF012


def _class_of(name: str, config: Any, layer: Layer) -> tuple[Any, dict[str, Any]]:
    """Return the class of transformers that a checkpoint is loaded as, and how.

    Of a Whisper checkpoint that is the encoder alone: no tensor of its decoder is read.
    """
    if config.model_type not in _FAMILIES:
        raise EncoderError(
            f"{name}: a {config.model_type!r} model; supported are {', '.join(_FAMILIES)}"
        )
    if getattr(config, "add_adapter", False):
        raise EncoderError(f"{name}: has an adapter that shortens time, which isn't supported")
    if config.model_type == "whisper":
        if layer == "logits":
            raise EncoderError(f"{name}: Whisper has no CTC head, so --layer logits can't be")
        return _WhisperEncoder, {"key_mapping": {r"^(model\.)?encoder\.": ""}}
    return transformers.AutoModelForCTC if layer == "logits" else transformers.AutoModel, {}


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


def _feature_extractor(name: str, source: str, local: bool, model_type: str) -> Any:
    """Return a checkpoint's feature extractor, None where it brings none.

    Raises:
        EncoderError: It can't be read, or wants another sampling rate or other input.
    """
    try:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(
            source, local_files_only=local
        )
    except (OSError, ValueError) as error:
        file = Path(source) / "preprocessor_config.json"
        if file.is_file():
            reason = str(error).splitlines()[0][:200]
            raise EncoderError(f"{name}: {file} can't be read ({reason})") from error
        if model_type != "whisper":
            log.warning(
                "%s: no preprocessor_config.json; its input is scaled to unit variance", source
            )
        return None
    rate = getattr(extractor, "sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise EncoderError(
            f"{name}: its feature extractor wants {rate} Hz, and clips are read at {SAMPLE_RATE}; "
            "take a checkpoint of 16 kHz speech (if only the file preprocessor_config.json is "
            "wrong, mend its sampling_rate)"
        )
    kind = type(extractor).__name__
    if model_type == "whisper":
        if not isinstance(extractor, transformers.WhisperFeatureExtractor):
            raise EncoderError(
                f"{name}: its feature extractor, a {kind}, isn't Whisper's; put the checkpoint's "
                "own preprocessor_config.json back"
            )
    elif not isinstance(extractor, transformers.Wav2Vec2FeatureExtractor):
        raise EncoderError(
            f"{name}: its feature extractor, a {kind}, gives no waveforms, which is what these "
            "encoders take"
        )
    return extractor


def _check_whisper(name: str, source: str, config: Any, extractor: Any) -> None:
    """Raise an EncoderError where a Whisper's files aren't of one checkpoint."""
    bands = getattr(extractor, "feature_size", config.num_mel_bins)
    if bands != config.num_mel_bins:
        raise EncoderError(
            f"{name}: its preprocessor_config.json has {bands} mel bands, its config.json "
            f"{config.num_mel_bins}; take both files from one checkpoint"
        )
    if config.max_source_positions * HOP_SAMPLES != WINDOW_SAMPLES:
        raise EncoderError(
            f"{name}: its position table has {config.max_source_positions} rows, and Whisper's "
            f"has {WINDOW_SAMPLES // HOP_SAMPLES}, 30 s of frames"
        )
    tokens = _tokens(Path(source) / "model.safetensors")
    if tokens not in (None, config.vocab_size):
        kinds = {False: "multilingual", True: "English-only"}
        raise EncoderError(
            f"{name}: its config.json is of a Whisper of {config.vocab_size} tokens "
            f"({kinds[config.vocab_size <= _ENGLISH]}), its weights are of one of {tokens} "
            f"({kinds[tokens <= _ENGLISH]}); take both files from one checkpoint"
        )


_ENGLISH = 51_864  # tokens of Whisper's English-only checkpoints; the multilingual have more


def _tokens(weights: Path) -> int | None:
    """Return how many tokens a Whisper's decoder has, by the file's header; None without one."""
    if not weights.is_file():
        return None
    with safe_open(weights, "pt") as file:
        keys = set(file.keys())
        for key in ("model.decoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
            if key in keys:
                return int(file.get_slice(key).get_shape()[0])
    return None


_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def _cannot_load(name: str, source: str, error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            f"{name}: needs code of its own from the hub, which is never executed; supported are "
            f"checkpoints that transformers loads by itself ({', '.join(_FAMILIES)})"
        )
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
        return (
            f"{name}: the hub's cache can't be written to ({reason}); set HF_HOME to a folder that "
            "can, for instance HF_HOME=/tmp/huggingface"
        )
    if Path(source).is_dir():
        return f"{name}: not a loadable encoder folder ({reason})"
    return (
        f"{name}: {source} is neither in the local cache nor available from the hub ({reason}). "
        "Without a network use the bundled encoder, --encoder mini, or the folder of a checkpoint "
        f"in transformers' format. Encoders with a name: {', '.join(ENCODERS)}"
    )


def _load_torchaudio(name: str, bundle_name: str) -> Checkpoint:
    bundle = getattr(torchaudio.pipelines, bundle_name)
    try:
        model = bundle.get_model(dl_kwargs={"weights_only": True, "progress": False})
    except Exception as error:  # of the network, the disk, the unpickler
        raise EncoderError(_cannot_load(name, bundle_name, error)) from error
    shapes = bundle._params["extractor_conv_layer_config"]
    return Checkpoint(
        model, _after_convolutions([k for _, k, _ in shapes], [s for _, _, s in shapes]),
        bundle._params["encoder_num_layers"], do_normalize=False, trained=True,
        library="torchaudio", facts={"bundle": bundle_name},
    )  # fmt: skip


def _load_spectrum(name: str, layer: Layer) -> Checkpoint:
    if layer == "logits":
        raise EncoderError(f"{name}: has no CTC head, so --layer logits can't be")
    return Checkpoint(
        LogMel(), _after_convolutions([WINDOW], [HOP]), 0, do_normalize=True,
        trained=True, library="spectrum",
    )  # fmt: skip


def load_checkpoint(name: str, layer: Layer, seed: int) -> Checkpoint:
    """Load an encoder by name, hub id or folder.

    Args:
        name: Key of `ENCODERS`, hub id, or folder in transformers' format.
        layer: `logits` loads the CTC head too.
        seed: Seed of untrained weights.

    Raises:
        EncoderError: Not found, not loadable, incomplete, or of another family.
    """
    spec = ENCODERS.get(name)
    if spec is None:
        is_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
        if not Path(name).is_dir() and not is_hub_id:
            raise EncoderError(
                f"no encoder {name!r}: neither a name ({', '.join(ENCODERS)}), a hub id like "
                "facebook/wav2vec2-base, nor a folder"
            )
        return _load_pretrained(name, name, layer)
    if spec.source == "torchaudio":
        return _load_torchaudio(name, spec.location)
    if spec.source == "spectrum":
        return _load_spectrum(name, layer)
    if spec.source == "hub":
        return _load_pretrained(name, spec.location, layer)
    if spec.source == "bundled":
        folder = str(BUNDLED_ENCODERS / spec.location)
        if changed := changed_files(Path(folder)):
            raise EncoderError(
                f"{name}: {folder} is damaged: {', '.join(changed)} changed since it was made; "
                "get the project's own files back"
            )
        return _load_pretrained(name, folder, layer)
    return _load_seeded(spec.location, layer, seed)


def fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 over a model's tensors, their names and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if "masked_spec_embed" in name:  # only training uses it; a checkpoint may lack it
            continue
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    return digest.hexdigest()
