"""The engines that run a frozen encoder: PyTorch, and OpenVINO where it is installed.

Both take a batch of waveforms and give its hidden states; which one ran must not show in the
features beyond rounding (fp32: 1e-4 relative).
"""

import hashlib
import importlib.util
import json
import logging
import os
import platform
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ser_embed.encoders.registry import BackendName, Precision
from ser_embed.errors import EncoderError, MissingExtra

__all__ = ["Backend", "cache_folder", "check_backend", "choose_backend", "make_backend"]

log = logging.getLogger(__name__)


class Backend(Protocol):
    """Runs a network over one batch."""

    name: str

    def __call__(self, waveforms: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Map waveforms (B, S) float32 and mask (B, S) bool or None to (B, L, T, D) float32."""
        ...


class TorchBackend:
    """PyTorch in inference mode, on the GPU where there is one."""

    name = "torch"

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.network = network.to(self.device, self.dtype).eval()

    def __call__(self, waveforms: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """See `Backend`."""
        # cuDNN would round fp32 convolutions to TF32's ten bits.
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            samples = torch.from_numpy(waveforms)
            if self.device.type == "cuda":
                samples = samples.pin_memory()  # or the copy would wait for what runs before it
            samples = samples.to(self.device, non_blocking=True)
            valid = None if mask is None else torch.from_numpy(mask).to(self.device)
            return self.network(samples, valid).float().cpu().numpy()


def cache_folder() -> Path:
    """Return where converted networks are kept: $SER_EMBED_CACHE, else ~/.cache/ser_embed."""
    return Path(os.environ.get("SER_EMBED_CACHE") or "~/.cache/ser_embed").expanduser()


class OpenVINOBackend:
    """OpenVINO on the CPU, converted in memory from the loaded PyTorch network.

    The converted network is kept in `cache_folder()`, by the fingerprint that is given. A copy
    there that isn't, byte for byte, what was written is converted anew.
    """

    name = "openvino"

    def __init__(self, network: nn.Module, precision: Precision, fingerprint: str = "") -> None:
        import openvino

        self.core = openvino.Core()
        # OpenVINO would round a spectrogram to bf16 too: torch computes it in fp32, in front.
        self.front, network = _parts(network.eval()) if precision == "bf16" else (None, network)
        self.network = network.eval()
        if precision == "bf16":
            _widen_groups(self.network)
            fingerprint = fingerprint and f"{fingerprint} wide groups"
        self.fingerprint = fingerprint
        self.hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time with every core on it
        }
        self.compiled: dict[bool, Any] = {}  # by whether the batch has a mask
        self.lock = threading.Lock()  # a compiled network refuses two callers at once

    def __call__(self, waveforms: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """See `Backend`."""
        inputs = [waveforms] if mask is None else [waveforms, mask]
        if self.front is not None:
            with torch.inference_mode():
                parts = self.front(*map(torch.from_numpy, inputs))
            inputs = [part.numpy() for part in parts if part is not None]
        masked = mask is not None and len(inputs) > 1
        with self.lock:
            if masked not in self.compiled:
                model = self._kept(masked)
                if model is None:
                    model = self._converted(masked)
                self.compiled[masked] = self.core.compile_model(model, "CPU", self.hints)
            return self.compiled[masked](inputs)[0]

    def _kept_at(self, masked: bool) -> Path:
        versions = [metadata.version(name) for name in ("openvino", "torch", "transformers")]
        text = json.dumps([self.fingerprint, masked, _CONVERSION, versions])
        return cache_folder() / "openvino" / hashlib.sha256(text.encode()).hexdigest()[:24]

    def _kept(self, masked: bool) -> Any:
        """Return the network converted earlier, None if there is none that is whole."""
        folder = self._kept_at(masked)
        try:
            if not self.fingerprint or _digests(folder) != json.loads(
                (folder / "digests.json").read_text()
            ):
                return None
            return self.core.read_model(folder / "network.xml")
        except (OSError, ValueError, RuntimeError):
            return None

    def _converted(self, masked: bool) -> Any:
        import openvino

        # Two different lengths, so that tracing can't take the batch or the length for constant.
        noise = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
        valid = torch.ones(2, 16_000, dtype=torch.bool)
        valid[1, 12_000:] = False
        example: tuple[torch.Tensor, ...] = (noise, valid) if masked else (noise,)
        if self.front is not None:
            example = tuple(part for part in self.front(*example) if part is not None)
        # Of waveforms (B, S) and spectrograms (B, n_mels, T) only the bands are fixed.
        shapes = [openvino.PartialShape([-1, *part.shape[1:-1], -1]) for part in example]
        with torch.inference_mode(), warnings.catch_warnings(), _quiet("transformers"):
            warnings.simplefilter("ignore")  # tracing remarks on every branch that it freezes
            model = openvino.convert_model(self.network, example_input=example, input=shapes)
        if self.fingerprint:
            self._keep(model, self._kept_at(masked))
        return model

    def _keep(self, model: Any, target: Path) -> None:
        """Keep a converted network; that it can't be kept costs the next start a conversion."""
        import openvino

        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
                written = Path(temporary) / "new"
                written.mkdir()
                openvino.save_model(model, written / "network.xml", compress_to_fp16=False)
                (written / "digests.json").write_text(json.dumps(_digests(written)))
                shutil.rmtree(target, ignore_errors=True)  # one that is damaged
                written.rename(target)
        except (OSError, RuntimeError) as error:
            log.info("%s: the converted network can't be kept (%s)", target, error)


@contextmanager
def _quiet(library: str) -> Iterator[None]:
    """Hide a library's warnings: tracing reads attributes that transformers remarks on."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _parts(network: nn.Module) -> tuple[nn.Module | None, nn.Module]:
    """Return a network's spectrogram and what comes behind it, if it has one."""
    front = getattr(network, "front", None)
    return front, getattr(network, "back", network) if front is not None else network


_WIDE = 32  # channels of a group


def _widen_groups(network: nn.Module) -> None:
    """Merge groups of grouped convolutions until they have 32 channels; outputs stay the same.

    For narrower ones OpenVINO has no bf16 kernel on AVX-512 and takes one that was 60 times
    slower than the next wider's (16 groups of 16 channels, kernel of 128, OpenVINO 2026.4).
    """
    for parent in list(network.modules()):
        for name, conv in list(parent.named_children()):
            if isinstance(conv, nn.Conv1d) and conv.groups > 1:
                width = conv.in_channels // conv.groups
                merged = next(
                    (n for n in range(2, conv.groups + 1)
                     if conv.groups % n == 0 and n * width >= _WIDE), 0
                )  # fmt: skip
                if width < _WIDE and merged:
                    setattr(parent, name, _merge_groups(conv, merged))


def _merge_groups(conv: nn.Conv1d, n: int) -> nn.Conv1d:
    """Return the same convolution with every `n` groups as one, the new weights being zero."""
    weight = conv.weight.detach()  # (C_out, C_in / groups, K)
    out, width, kernel = weight.shape
    merged = nn.Conv1d(
        conv.in_channels, out, kernel, conv.stride[0], conv.padding[0], conv.dilation[0],
        conv.groups // n, conv.bias is not None,
    )  # fmt: skip
    blocks = weight.reshape(conv.groups // n, n, out // conv.groups, width, kernel)
    wide = torch.zeros(conv.groups // n, n, out // conv.groups, n, width, kernel)
    for i in range(n):
        wide[:, i, :, i] = blocks[:, i]
    with torch.no_grad():
        merged.weight.copy_(wide.reshape(out, n * width, kernel))
        if conv.bias is not None and merged.bias is not None:
            merged.bias.copy_(conv.bias)
    return merged.requires_grad_(False)


_CONVERSION = 3  # version of what is converted: the wrapping of the network, its inputs


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of a converted network's files."""
    digests = {}
    for name in ("network.xml", "network.bin"):
        digest = hashlib.sha256()
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digests[name] = digest.hexdigest()
    return digests


def choose_backend(name: BackendName) -> str:
    """Resolve `auto`: the GPU through torch; OpenVINO on x86 CPUs if installed; else torch."""
    if name != "auto":
        return name
    if torch.cuda.is_available() or platform.machine().lower() not in ("x86_64", "amd64"):
        return "torch"
    return "openvino" if importlib.util.find_spec("openvino") else "torch"


def make_backend(
    name: BackendName, network: nn.Module, precision: Precision, fingerprint: str = ""
) -> Backend:
    """Return the backend of that name around a network.

    Args:
        name: Backend, or `auto`.
        network: Maps waveforms and mask to hidden states; see `Backend`.
        precision: Arithmetic.
        fingerprint: What the network is, down to its weights: a converted one is kept by it;
            empty keeps none.

    Raises:
        MissingExtra: OpenVINO was asked for and isn't installed.
        EncoderError: No such backend.
    """
    check_backend(name)
    if choose_backend(name) == "torch":
        return TorchBackend(network, precision)
    return OpenVINOBackend(network, precision, fingerprint)


def check_backend(name: BackendName) -> None:
    """Raise what `make_backend` would of a backend that can't be made."""
    chosen = choose_backend(name)
    if chosen not in ("torch", "openvino"):
        raise EncoderError(f"no backend {name!r}; there are auto, torch, openvino")
    if chosen == "openvino" and importlib.util.find_spec("openvino") is None:
        raise MissingExtra("openvino", "openvino")
