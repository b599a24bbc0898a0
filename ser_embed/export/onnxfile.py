"""A classifier's module as an ONNX file: written, stored small, in 8 bits, run.

Needs the extra `onnx`.
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ser_embed.errors import ExportError, MissingExtra

__all__ = [
    "OnnxClassifier", "quantise", "require_onnx", "set_metadata", "store_half_precision",
    "write_onnx",
]  # fmt: skip

INPUT, OUTPUT = "waveform", "probabilities"
OPSET = 17  # the first with layer normalisation
MOST_BYTES = 2_000_000_000  # an ONNX file is one protobuf message, which ends at 2 GiB
_LEAST_SIZE = 1000  # values in a tensor that is worth storing in half


def require_onnx() -> None:
    """Check that the extra is there.

    Raises:
        MissingExtra: onnx or onnxruntime isn't installed.
    """
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "onnx")


def write_onnx(network: nn.Module, n_samples: int, path: Path) -> None:
    """Trace a module from waveforms (B, S) to probabilities (B, C); B and S stay free.

    Args:
        network: In evaluation mode, on the CPU; its batch norms without weights get ones.
        n_samples: Length that it is traced at.
        path: The file.

    Raises:
        ExportError: Larger than an ONNX file can be.
    """
    size = sum(p.numel() * p.element_size() for p in network.parameters())
    if size > MOST_BYTES:
        raise ExportError(
            f"{size / 1e9:.1f} GB of weights, and an ONNX file ends at 2 GB: train on a lower layer"
        )
    for module in network.modules():
        # Without weights it can't be exported where the input's size has been lost in tracing.
        if isinstance(module, nn.BatchNorm1d) and module.weight is None:
            module.weight = nn.Parameter(torch.ones(module.num_features), requires_grad=False)
            module.bias = nn.Parameter(torch.zeros(module.num_features), requires_grad=False)
    # Two clips, so that tracing can't take the batch for constant.
    noise = torch.randn(2, n_samples, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing remarks on every branch that it freezes
        # The other exporter, torch.export's, needs onnxscript.
        torch.onnx.export(
            network, (noise,), str(path), input_names=[INPUT], output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch", 1: "samples"}, OUTPUT: {0: "batch"}},
            opset_version=OPSET, dynamo=False,
        )  # fmt: skip


def store_half_precision(path: Path, out: Path) -> None:
    """Store in float16 the weights that lose nothing by it; every computation stays in float32.

    A checkpoint that came in half precision has most of its weights so, the bundled encoder's
    among them. Runtimes widen them once, when they load the file.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _LEAST_SIZE:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if np.array_equal(halves.astype(np.float32), values):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(halves, f"{name}_half"))
            casts.append(
                onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT)
            )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, out)


def quantise(path: Path, out: Path) -> None:
    """Write a variant whose matrix products are in 8 bits, with scales found as it runs.

    Weights have a scale per output and seven of the eight bits: products then can't saturate on
    processors without 8-bit dot products, so the file says the same everywhere.
    """
    from onnxruntime.quantization import quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a preprocessing that needs fixed shapes
    try:
        quantize_dynamic(
            path, out, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True,
            reduce_range=True,
        )  # fmt: skip
    finally:
        root.setLevel(level)


def set_metadata(path: Path, facts: Mapping[str, Any]) -> None:
    """Write what a file says of itself: text as it is, all else as JSON."""
    import onnx

    model = onnx.load(path)
    model.producer_name, model.producer_version = "ser_embed", str(facts["ser_embed"])
    model.doc_string = str(facts["trained_on"])
    onnx.helper.set_model_props(
        model, {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}
    )
    onnx.save(model, path)


class OnnxClassifier:
    """An exported file in ONNX Runtime, on the CPU with as many threads as torch has."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself."""
        return dict(self.session.get_modelmeta().custom_metadata_map)

    def __call__(self, waveforms: np.ndarray) -> np.ndarray:
        """Map waveforms (B, S), float32 at 16 kHz, to probabilities (B, C)."""
        return self.session.run([OUTPUT], {INPUT: waveforms})[0]
