"""The engines that run a frozen encoder: PyTorch, and OpenVINO where it is installed.

Both take a batch of waveforms and give its hidden states; which one ran must not show in the
features beyond rounding (fp32: 1e-4 relative).
"""

import importlib.util
import platform
import warnings
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import nn

from ser_embed.errors import EncoderError, MissingExtra

__all__ = ["Backend", "BackendName", "Precision", "choose_backend", "make_backend"]

BackendName = Literal["auto", "torch", "openvino"]
Precision = Literal["fp32", "bf16"]


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
            samples = torch.from_numpy(waveforms).to(self.device, self.dtype)
            valid = None if mask is None else torch.from_numpy(mask).to(self.device)
            return self.network(samples, valid).float().cpu().numpy()


class OpenVINOBackend:
    """OpenVINO on the CPU, converted in memory from the loaded PyTorch network."""

    name = "openvino"

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        import openvino

        self.core = openvino.Core()
        self.network = network.eval()
        self.hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time with every core on it
        }
        self.compiled: dict[bool, Any] = {}  # by whether the batch has a mask

    def __call__(self, waveforms: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """See `Backend`."""
        masked = mask is not None
        if masked not in self.compiled:
            self.compiled[masked] = self._compile(masked)
        inputs = [waveforms] if mask is None else [waveforms, mask]
        return self.compiled[masked](inputs)[0]

    def _compile(self, masked: bool) -> Any:
        import openvino

        # Two different lengths, so that tracing can't take the batch or the length for constant.
        noise = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
        example: tuple[torch.Tensor, ...] = (noise,)
        shapes: list[Any] = [openvino.PartialShape([-1, -1])]
        if masked:
            valid = torch.ones(2, 16_000, dtype=torch.bool)
            valid[1, 12_000:] = False
            example += (valid,)
            shapes *= 2
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing remarks on every branch that it freezes
            model = openvino.convert_model(self.network, example_input=example, input=shapes)
        return self.core.compile_model(model, "CPU", self.hints)


def choose_backend(name: BackendName) -> str:
    """Resolve `auto`: the GPU through torch; OpenVINO on x86 CPUs if installed; else torch."""
    if name != "auto":
        return name
    if torch.cuda.is_available() or platform.machine().lower() not in ("x86_64", "amd64"):
        return "torch"
    return "openvino" if importlib.util.find_spec("openvino") else "torch"


def make_backend(name: BackendName, network: nn.Module, precision: Precision) -> Backend:
    """Return the backend of that name around a network.

    Raises:
        MissingExtra: OpenVINO was asked for and isn't installed.
        EncoderError: No such backend.
    """
    chosen = choose_backend(name)
    if chosen == "torch":
        return TorchBackend(network, precision)
    if chosen == "openvino":
        if importlib.util.find_spec("openvino") is None:
            raise MissingExtra("openvino", "openvino")
        return OpenVINOBackend(network, precision)
    raise EncoderError(f"no backend {name!r}; there are auto, torch, openvino")
