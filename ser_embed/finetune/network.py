"""Encoder and classifier as one network: waveform in, log-probabilities out.

Three kinds: `classification`, transformers' own (mean over time of a projection, then a linear
layer), `mlp` (mean over time, then 512 -> 256 -> classes), and `stats` (mean and deviation of all
layers, then two hidden layers: stage 2's default head). A trained one is a folder with
`model.safetensors`, transformers' `config.json` and `preprocessor_config.json`, and `card.json`.

It is loaded whole or refused. transformers draws tensors that a checkpoint lacks at random and
carries on, so a well-known model of this field, whose head goes by other names than its class
gives it, answers at random wherever it is loaded.
"""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ser_embed.encoders import Encoder, Graph, load_encoder
from ser_embed.errors import EncoderError, HeadError
from ser_embed.finetune.options import Freeze
from ser_embed.finetune.recipes import NetworkKind
from ser_embed.heads import build_head, read_card, save_head

__all__ = [
    "WEIGHTS", "EncoderHead", "Network", "build_network", "is_network", "load_network",
    "save_network",
]  # fmt: skip

KIND = "network"  # what a card says of a whole network; a head's card says nothing
WEIGHTS = "model.safetensors"


class EncoderHead(nn.Module):
    """A head of stage 2 on an encoder: `mlp` on its last layer, or `stats` on all of them."""

    def __init__(
        self, encoder: Any, head: Literal["mlp", "stats"], n_classes: int, dropout: float,
        seed: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder, self.config = encoder, encoder.config
        self.all_layers = head == "stats"
        width = encoder.config.hidden_size
        if self.all_layers:
            # A layer that is skipped in training leaves no states.
            for config in (encoder.config, getattr(encoder, "encoder", encoder).config):
                config.layerdrop = 0.0
            shape: tuple[int, ...] = (encoder.config.num_hidden_layers + 1, 1, width)
        else:
            shape = (1, width)
        layer = "all" if self.all_layers else encoder.config.num_hidden_layers
        # In a tuple, since its parameters are the encoder's, which are saved once.
        self.network = (Graph.states_of(encoder, layer),)
        self.head: Any = build_head(head, shape, n_classes, False, seed, dropout=dropout)

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Return `logits`, which are log-probabilities (B, C)."""
        return {"logits": self.head(*self.states(input_values, attention_mask))}

    def pooled(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return what the head pools of the encoder's states, (B, D) or (B, 2 L D)."""
        return self.head.pool(*self.states(input_values, attention_mask))

    def states(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return hidden states (B, T, D) or (B, L, T, D), and each clip's valid frames (B,)."""
        states = self.network[0](input_values, attention_mask)  # (B, L, T, D)
        frames = torch.full((len(states),), states.shape[2], device=states.device)
        if attention_mask is not None:
            frames = self.network[0].n_frames(attention_mask.sum(1))
        return states if self.all_layers else states[:, 0], frames


class WhisperClassifier(nn.Module):
    """transformers' classifier on Whisper's encoder, at a clip's own length: the mean over time of
    a projection, then a linear layer. transformers itself runs it at 30 s.
    """

    def __init__(self, encoder: Any, n_classes: int) -> None:
        super().__init__()
        self.encoder, self.config = encoder, encoder.config
        self.network = (Graph.states_of(encoder, encoder.config.num_hidden_layers),)
        width = encoder.config.classifier_proj_size
        self.projector = nn.Linear(encoder.config.hidden_size, width)
        self.classifier = nn.Linear(width, n_classes)

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Return `logits` (B, C)."""
        projected = self.projector(self.network[0](input_values, attention_mask)[:, 0])  # (B, T, P)
        if attention_mask is None:
            return {"logits": self.classifier(projected.mean(1))}
        frames = self.network[0].n_frames(attention_mask.sum(1))[:, None]  # (B, 1)
        own = torch.arange(projected.shape[1], device=frames.device) < frames
        return {"logits": self.classifier((projected * own[..., None]).sum(1) / frames)}


@dataclass(frozen=True)
class Network:
    """A network and what has to be known to feed it.

    Attributes:
        kind: Key of what stands on the encoder.
        module: transformers' model or an `EncoderHead`.
        do_normalize: Whether the input is scaled to zero mean and unit variance.
        dropout: Of the layers of `mlp` and `stats`.
        weights: SHA-256 of the pre-trained encoder's weights.
        trained: False if the encoder started from seeded weights.
    """

    kind: NetworkKind
    module: Any
    do_normalize: bool
    dropout: float
    weights: str = ""
    trained: bool = True

    def batch(self, waveforms: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """Return what the module takes: `input_values` (B, S) and, if padded, an
        `attention_mask`; see `Graph.with_mask`.
        """
        values, mask = Encoder.batch(waveforms, self.do_normalize)
        inputs = torch.from_numpy(values)
        if mask is None:
            return {"input_values": inputs}
        valid = torch.from_numpy(mask.astype(np.int64))
        if self.kind == "classification" and not self._is_whisper:  # transformers' own
            inputs = Graph.with_mask(self.encoder, inputs, valid)
        return {"input_values": inputs, "attention_mask": valid}

    def log_probabilities(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Return log-probabilities float32 (B, C) of waveforms (n_samples,): dropout off, fp32."""
        device = next(self.module.parameters()).device
        batch = {name: tensor.to(device) for name, tensor in self.batch(waveforms).items()}
        self.module.eval()
        with torch.inference_mode():
            logits = self.module(**batch)["logits"].float()
        return torch.log_softmax(logits, dim=1).cpu().numpy()

    @property
    def encoder(self) -> Any:
        """The encoder, of transformers."""
        own = isinstance(self.module, EncoderHead | WhisperClassifier)
        return self.module.encoder if own else self.module.base_model

    @property
    def n_layers(self) -> int:
        """Number of transformer layers of the encoder."""
        return len(self._layers)

    @property
    def _layers(self) -> Any:
        return getattr(self.encoder, "encoder", self.encoder).layers

    @property
    def _is_whisper(self) -> bool:
        return self.encoder.config.model_type == "whisper"

    def _freeze_convolutions(self) -> None:
        if self._is_whisper:
            self.encoder.conv1.requires_grad_(False)
            self.encoder.conv2.requires_grad_(False)
        else:
            # Unlike requires_grad_, this also keeps autograd from recording the convolutions.
            self.encoder.feature_extractor._freeze_parameters()

    def _below_layers(self) -> list[Any]:
        """Return what stands between the convolutions and the transformer's layers."""
        if self._is_whisper:
            return []  # a table of positions, which is never trained
        encoder = self.encoder
        parts = [encoder.feature_projection, encoder.encoder.pos_conv_embed]
        if not getattr(encoder.config, "do_stable_layer_norm", False):
            parts.append(encoder.encoder.layer_norm)
        return parts

    @property
    def parameters(self) -> tuple[int, int]:
        """How many parameters the encoder has, and what stands on it."""
        encoder = sum(p.numel() for p in self.encoder.parameters())
        return encoder, sum(p.numel() for p in self.module.parameters()) - encoder

    def freeze(self, lowest: Freeze) -> int:
        """Keep the lower part of the encoder as it is; return how many parameters are trained.

        Args:
            lowest: 0 for the convolutions, N for them and the N lowest transformer layers, `all`
                for the whole encoder, `none`.

        Raises:
            EncoderError: It has fewer layers.
        """
        layers = self._layers
        if isinstance(lowest, int):
            if not 0 <= lowest <= len(layers):
                raise EncoderError(f"--freeze {lowest}: the encoder has {len(layers)} layers")
            self._freeze_convolutions()
            if lowest:
                for part in (*self._below_layers(), *layers[:lowest]):
                    part.requires_grad_(False)
        elif lowest == "all":
            self._freeze_convolutions()
            self.encoder.requires_grad_(False)
        return sum(p.numel() for p in self.module.parameters() if p.requires_grad)

    def mask_states(self, time: float | None, features: float | None) -> None:
        """Set how much of what enters the transformer is masked in training (SpecAugment: Park et
        al. 2019, on hidden states as wav2vec 2.0 has it).

        Args:
            time: Proportion of the frames, in spans of ten; None for what the encoder's
                configuration says.
            features: Proportion of the features, likewise.

        Raises:
            EncoderError: transformers masks nothing in encoders of this kind.
        """
        encoder = self.encoder
        if self._is_whisper:
            if time or features:
                raise EncoderError("whisper: its hidden states can't be masked")
            return
        proportions = {"mask_time_prob": time, "mask_feature_prob": features}
        for config in (encoder.config, self.module.config):  # the latter is what is saved
            for name, proportion in proportions.items():
                if proportion is not None:
                    if not hasattr(config, name):
                        kind = config.model_type
                        raise EncoderError(f"{kind}: its hidden states can't be masked")
                    setattr(config, name, proportion)
                    config.apply_spec_augment = True
                    if not hasattr(config, "mask_feature_min_masks"):  # WavLM's lacks it
                        config.mask_feature_min_masks = 0
        # transformers has an embedding of masked frames if, and only if, something is masked.
        masks = any(getattr(encoder.config, name, 0) > 0 for name in proportions)
        if masks and not hasattr(encoder, "masked_spec_embed"):
            generator = torch.Generator().manual_seed(0)
            drawn = torch.rand(encoder.config.hidden_size, generator=generator)
            encoder.masked_spec_embed = nn.Parameter(drawn)
        elif not masks and hasattr(encoder, "masked_spec_embed"):
            del encoder.masked_spec_embed


def build_network(
    kind: NetworkKind, encoder: str, classes: Sequence[str], dropout: float, seed: int
) -> Network:
    """Put a new classifier, drawn from the seed, on a pre-trained encoder.

    Args:
        kind: What stands on the encoder.
        encoder: Key of `ENCODERS`, hub id or folder; a classifier that its checkpoint may have
            is not used.
        classes: Class names.
        dropout: Of the layers of `mlp` and `stats`.
        seed: Seed of what is new.

    Raises:
        EncoderError: The encoder can't be loaded, or isn't one of transformers'.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # a checkpoint may lack the mask's embedding
        loaded = load_encoder(encoder, "all", backend="torch", seed=seed)
        if loaded.library not in ("transformers", "whisper"):
            raise EncoderError(f"{encoder}: only encoders of transformers can be fine-tuned")
        model: Any = loaded.model.cpu().requires_grad_(True)
        if loaded.library == "whisper":
            model.embed_positions.requires_grad_(False)  # sines, which Whisper never trained
        config = deepcopy(model.config)
        config.id2label = dict(enumerate(classes))
        config.label2id = {name: number for number, name in enumerate(classes)}
        torch.default_generator.manual_seed(seed)
        module = _assemble(kind, config, len(classes), dropout, seed, model)
    return Network(
        kind, module.float(), loaded.do_normalize, dropout, loaded.weights,
        loaded.trained,
    )  # fmt: skip


def _assemble(
    kind: NetworkKind, config: Any, n_classes: int, dropout: float, seed: int, encoder: Any
) -> Any:
    of_whisper = config.model_type == "whisper"
    if encoder is None and of_whisper:
        encoder = WhisperEncoder(config)
    if kind != "classification":
        encoder = encoder or transformers.AutoModel.from_config(config)
        encoder.config = config
        return EncoderHead(encoder, kind, n_classes, dropout, seed)
    if of_whisper:
        encoder.config = config
        config.architectures = ["WhisperForAudioClassification"]
        return WhisperClassifier(encoder, n_classes)
    module = transformers.AutoModelForAudioClassification.from_config(config)
    if encoder is not None:
        setattr(module, module.base_model_prefix, encoder)
    Graph.mask_padding(module)
    module.config.architectures = [type(module).__name__]  # so that transformers can load it
    return module


# --- checkpoints -----------------------------------------------------------------------------


def is_network(card: dict[str, Any]) -> bool:
    """Whether a card is of a whole network and not of a head."""
    return card.get("kind") == KIND


def save_network(folder: Path, network: Network, card: dict[str, Any]) -> None:
    """Write the weights, what transformers needs to load them, and `card.json` last."""
    folder.mkdir(parents=True, exist_ok=True)
    network.module.config.save_pretrained(folder)
    _feature_extractor(network).save_pretrained(folder)
    settings = {
        "kind": network.kind, "do_normalize": network.do_normalize,
        "dropout": network.dropout, "config_sha256": _digest(folder / "config.json"),
    }  # fmt: skip
    save_head(folder, network.module, {"kind": KIND, **card, "network": settings}, WEIGHTS)


def _feature_extractor(network: Network) -> Any:
    config = network.encoder.config
    if config.model_type == "whisper":
        return transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    return transformers.Wav2Vec2FeatureExtractor(
        do_normalize=network.do_normalize,
        return_attention_mask=config.feat_extract_norm == "layer",  # transformers' own rule
    )


def load_network(folder: Path) -> tuple[Network, dict[str, Any]]:
    """Load a fine-tuned network, whole, in evaluation mode, and its card.

    Raises:
        HeadError: Missing, damaged, changed since it was written, of another kind, or without
            all of its tensors.
    """
    card = read_card(folder)
    if not is_network(card):
        raise HeadError(f"{folder}: holds a head on frozen features, not a fine-tuned network")
    read_card(folder, WEIGHTS)
    try:
        settings = card["network"]
        if _digest(folder / "config.json") != settings["config_sha256"]:
            raise HeadError("config.json is not the one that card.json was written for")
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.random.fork_rng(devices=[]):
            module = _assemble(
                settings["kind"], config, len(card["classes"]), settings["dropout"], 0, None
            )
        _fill(module, load_file(folder / WEIGHTS))
    except (LookupError, TypeError, ValueError, OSError, RuntimeError, SafetensorError,
            HeadError) as error:  # fmt: skip
        raise HeadError(f"{folder}: can't be loaded ({error}); train again") from error
    module.float().eval()
    network = Network(
        settings["kind"], module, settings["do_normalize"],
        settings["dropout"], card["features"]["weights"], card["encoder_trained"],
    )  # fmt: skip
    return network, card


def _fill(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    missing = sorted(set(module.state_dict()) - set(state))
    if missing:
        raise HeadError(
            f"{WEIGHTS} lacks {len(missing)} tensors, {missing[0]} among them, which "
            "would be random"
        )
    module.load_state_dict(state)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
