"""Frozen speech encoders of the wav2vec2 and Whisper families, and the features they give.

An encoder is named by a registry entry (`mini`, `wav2vec2-base`, `random-base`, ...), a hub id
or a folder in transformers' format. Layer N is transformers' `hidden_states[N]`: 0 is what goes
into the first transformer layer, N what comes out of the N-th. The last one is taken after the
final norm of the encoders that have one (`last_hidden_state`), as transformers 4 did and 5
doesn't. Layers above the last one asked for are not run.
"""

import gc
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from ser_embed.audio import SAMPLE_RATE, Clip
from ser_embed.encoders.backends import Backend, check_backend, make_backend
from ser_embed.encoders.checkpoints import Checkpoint, fingerprint, load_checkpoint
from ser_embed.encoders.graph import (
    hidden_states,
    pool_states,
    scale_states,
    unit_variance,
)
from ser_embed.encoders.padding import MaskedConvolutions
from ser_embed.encoders.registry import BackendName, Context, Layer, Norm, Pool, Precision
from ser_embed.encoders.whisper import WINDOW_SAMPLES
from ser_embed.errors import EncoderError, OutOfMemory

__all__ = ["Encoder", "denormalise", "load_encoder", "normalise"]


_PIECE_STEP = 640  # samples, taken off the piece before one that is too short to be encoded


class _TorchaudioConvolutions(MaskedConvolutions):
    """The same of torchaudio's, which give the frames' numbers as well."""

    def forward(  # type: ignore[override]
        self, waveforms: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        states, frames = waveforms[:, None], lengths
        for number, layer in enumerate(self.conv_layers):
            before = states
            states, frames = layer(states, frames)
            if not number and lengths is not None:
                states = self.normed(layer, before, lengths)
        return states.transpose(1, 2), frames


class _TorchaudioStates(nn.Module):
    """`HiddenStates` of a torchaudio bundle, whose layers count from 1."""

    def __init__(self, model: Any, layer: Layer) -> None:
        super().__init__()
        self.model, self.layer = model, layer
        model.feature_extractor = _TorchaudioConvolutions(model.feature_extractor)

    def forward(self, waveforms: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        waveforms = waveforms.to(next(self.model.parameters()).dtype)
        lengths = None if mask is None else mask.long().sum(1)
        if self.layer == "logits":
            return self.model(waveforms, lengths)[0].unsqueeze(1)
        wanted = None if self.layer == "all" else self.layer
        states, _ = self.model.extract_features(waveforms, lengths, num_layers=wanted)
        return torch.stack(states if self.layer == "all" else states[-1:], dim=1)


def load_encoder(
    name: str = "mini",
    layer: Layer | None = None,
    *,
    backend: BackendName = "auto",
    precision: Precision = "fp32",
    seed: int = 0,
    context: Context = "clip",
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
        context: What Whisper sees: `clip` the clip alone, `30s` the clip and silence behind it
            up to 30 s, as it was trained. The frames given are the clip's own in both.

    Raises:
        EncoderError: Not found, not loadable, incomplete, or no such layer.
        MissingExtra: The backend isn't installed.
    """
    if context not in get_args(Context):
        raise EncoderError(f"no context {context!r}; there are clip and 30s")
    with torch.random.fork_rng(devices=[]):  # transformers draws weights before it loads them
        loaded = load_checkpoint(name, layer if layer is not None else 0, seed)
    if layer is None:
        layer = loaded.n_layers // 2
    first = 1 if loaded.library == "torchaudio" else 0
    if layer not in ("all", "logits", *range(first, loaded.n_layers + 1)):
        raise EncoderError(
            f"{name}: no layer {layer}; it has {first} to {loaded.n_layers}, 'all' and 'logits'"
        )
    if context != "clip" and loaded.library != "whisper":
        raise EncoderError(
            f"{name}: --context {context} is for Whisper, which was trained on 30 s; every other "
            "encoder sees the clip alone, --context clip"
        )
    network = loaded.model  # a spectrogram is its own hidden states
    if loaded.library == "torchaudio":
        network = _TorchaudioStates(loaded.model, layer)
    elif loaded.library != "spectrum":
        network = hidden_states(loaded.model, layer, context)
    return Encoder(name, layer, loaded, network, backend, precision, context)


# What torch, CUDA's libraries and OpenVINO say, none of which has an error of its own for it.
_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|bad.?alloc|ALLOC_FAILED|"
    r"could not create a (primitive|memory)|"  # oneDNN's words
    r"failed to allocate|cannot allocate|std::length_error",
    re.IGNORECASE,
)


# --- the encoder -----------------------------------------------------------------------------


class Encoder:
    """A frozen encoder: waveforms in, hidden states out.

    Attributes:
        name: What it was asked for by.
        layer: Layer that it gives.
        n_layers: Number of transformer layers of the whole model.
        weights: SHA-256 of its weights.
        configuration: SHA-256 of what else changes its output: of the configuration, and how the
            feature extractor scales the input.
        trained: False for seeded weights.
        do_normalize: Whether the input is scaled to zero mean and unit variance.
        context: `clip`, or `30s` of a Whisper that sees silence behind a clip.
        most_samples: Samples of the longest clip that is encoded in one pass, None for any.
        library: Whose model it is: `transformers`, `whisper` (its encoder, of transformers),
            `torchaudio`, or `spectrum` for none.
        model: The model as its library has it; its upper layers are gone unless `layer` is
            `all`.
        network: The same as a map from waveforms (B, S) to hidden states (B, L, T, D).
    """

    def __init__(
        self, name: str, layer: Layer, loaded: Checkpoint, network: nn.Module,
        backend: BackendName, precision: Precision, context: Context = "clip",
    ) -> None:  # fmt: skip
        self.name, self.layer, self.context = name, layer, context
        self.precision: Precision = precision
        self.trained = loaded.trained
        self.do_normalize, self.library = loaded.do_normalize, loaded.library
        self.n_layers, self.model, self.network = loaded.n_layers, loaded.model, network
        self._n_frames = loaded.n_frames
        # What one pass sees at most: behind it Whisper's position table ends.
        self.most_samples = WINDOW_SAMPLES if loaded.library == "whisper" else None
        self.weights, self.configuration = fingerprint(loaded.model), loaded.configuration
        network.requires_grad_(False).eval()
        # The weights, and all that the configuration changes in how they are used.
        config = getattr(loaded.model, "config", None)
        self._identity = (
            f"{self.weights} {layer} {context} {config and config.to_json_string()} {network}"
        )
        check_backend(backend)
        self._backend = backend

    @cached_property
    def backend(self) -> Backend:
        """What runs the network: on the GPU, which is taken when it is first asked for."""
        return make_backend(self._backend, self.network, self.precision, self._identity)

    @property
    def clips_at_once(self) -> int:
        """How many clips of 3 s suit a batch: on a processor 8, which its caches still hold."""
        if self.backend.name != "torch" or not torch.cuda.is_available():
            return 8
        total = torch.cuda.get_device_properties(0).total_memory
        return 8 * max(1, round(total / 3e9))

    def n_frames(self, n_samples: int) -> int:
        """Return how many frames a clip of so many samples gives (48,000 samples: 149)."""
        return sum(map(self._n_frames, self._pieces(n_samples)))

    def _pieces(self, n_samples: int) -> list[int]:
        """Return the lengths of the passes that a clip takes; one unless it is over 30 s long.

        The last one is long enough to be encoded, whatever is left over.
        """
        if self.most_samples is None or n_samples <= self.most_samples:
            return [n_samples]
        if self.context == "30s":
            raise EncoderError(
                f"a clip of {n_samples / SAMPLE_RATE:.1f} s is longer than a context of 30 s; "
                "--context clip encodes it in pieces, --seconds 30 cuts it"
            )
        pieces = [self.most_samples] * (n_samples // self.most_samples)
        rest = n_samples - sum(pieces)
        if 0 < rest < Clip.MIN_SAMPLES:
            pieces[-1] -= _PIECE_STEP
            rest += _PIECE_STEP
        return [*pieces, rest] if rest else pieces

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Encode clips as one batch, the shorter ones padded, which changes nothing of them.

        Args:
            waveforms: float32 arrays of shape (n_samples,) at 16 kHz, 400 samples or more each.

        Returns:
            For each clip its hidden states, float32 of shape (L, T, D); L is 1 unless all
            layers were asked for.

        Raises:
            EncoderError: A clip is under 400 samples.
            OutOfMemory: There isn't enough of it.
        """
        for waveform in waveforms:
            if len(waveform) < Clip.MIN_SAMPLES:
                raise EncoderError(
                    f"a clip of {len(waveform)} samples; {Clip.MIN_SAMPLES} are needed"
                )
        pieces = [
            np.split(waveform, np.cumsum(self._pieces(len(waveform)))[:-1])
            for waveform in waveforms
        ]
        states = iter(self._encode([piece for clip in pieces for piece in clip]))
        joined = [[next(states) for _ in clip] for clip in pieces]
        return [clip[0] if len(clip) == 1 else np.concatenate(clip, axis=1) for clip in joined]

    def _encode(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        if not waveforms:
            return []
        with self._named_shortage(waveforms):
            batch, mask = self.batch(waveforms, self.do_normalize)
            if self.context == "30s":  # silence is what it has behind a clip
                mask = None
            return [
                states[:, : self.n_frames(len(waveform))]  # (L, T, D)
                for states, waveform in zip(self.backend(batch, mask), waveforms, strict=True)
            ]

    @contextmanager
    def _named_shortage(self, waveforms: Sequence[np.ndarray]) -> Iterator[None]:
        """Turn what is said of too little memory into an OutOfMemory."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
                raise
            n, longest = len(waveforms), max(map(len, waveforms)) / SAMPLE_RATE
            what = "a clip" if n == 1 else f"{n} clips at once, the longest"
            raise OutOfMemory(
                f"{self.name}: not enough memory to encode {what} of {longest:.1f} s; give shorter "
                "clips (--seconds, or ranges of the file in a table) or a smaller --batch-size"
            ) from error

    def free_memory(self) -> None:
        """Give back what a batch that was too large has left allocated."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @staticmethod
    def batch(
        waveforms: Sequence[np.ndarray], do_normalize: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Stack waveforms (n_samples,) as float32 (B, S), zeros behind the shorter ones.

        Args:
            waveforms: The clips.
            do_normalize: Whether each is scaled to zero mean and unit variance.

        Returns:
            The batch and a mask, True on a clip's own samples, bool (B, S); None if all are as
            long.
        """
        lengths = np.array([len(w) for w in waveforms])
        batch = np.zeros((len(waveforms), lengths.max()), dtype=np.float32)
        for row, waveform in zip(batch, waveforms, strict=True):
            own = row[: len(waveform)]
            own[:] = waveform
            if do_normalize:
                own[:] = unit_variance(torch.from_numpy(own)).numpy()
        if lengths.min() == lengths.max():
            return batch, None
        return batch, np.arange(lengths.max()) < lengths[:, None]

    def features(
        self, waveforms: Sequence[np.ndarray], norm: Norm, pool: Pool
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Encode, normalise and pool clips: what a store keeps and a head is trained on.

        Returns:
            For each clip (features, range). Features are float32 (T, D), or (L, T, D) for all
            layers, or pooled (L, D), with `stats` (L, 2 D); range is what undoes the
            normalisation, (T, 2) or (L, T, 2), empty when pooled or not normalised.
        """
        results = []
        with self._named_shortage(waveforms):
            for states in self.encode(waveforms):
                features, extrema = scale_states(torch.from_numpy(states), norm)
                if pool != "none":
                    features, extrema = pool_states(features, pool), extrema.new_empty(0)
                elif self.layer != "all":
                    features, extrema = features[0], extrema[0] if len(extrema) else extrema
                results.append((features.numpy(), extrema.numpy()))
        return results


def normalise(states: np.ndarray, norm: Norm) -> tuple[np.ndarray, np.ndarray]:
    """Scale hidden states (..., T, D) to [-1, 1]: see `graph.scale_states`.

    Returns:
        The scaled states, and the extrema as float32 of shape (..., T, 2), empty with `none`.
    """
    features, extrema = scale_states(torch.from_numpy(states), norm)
    return features.numpy(), extrema.numpy()


def denormalise(features: np.ndarray, extrema: np.ndarray) -> np.ndarray:
    """Undo `normalise`: features (..., T, D) and extrema (..., T, 2) to hidden states."""
    low, high = extrema[..., :1], extrema[..., 1:]
    return (features.astype(np.float32) + 1) / 2 * (high - low) + low
