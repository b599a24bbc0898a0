"""A run as one ONNX file or as a folder for transformers.

`export_onnx` writes a `Classifier` as a graph from waveforms, float32 (B, n_samples) at 16 kHz, cut
and filled, to probabilities (B, C), compared with the classifier before it appears;
`OnnxClassifier` runs such a file. `export_run` does what the command's `ExportConfig` says, the
folder for transformers among it.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.export.exporting import export_onnx, export_run
    from ser_embed.export.onnxfile import OnnxClassifier
    from ser_embed.export.options import ExportConfig
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "exporting": ["export_onnx", "export_run"],
            "onnxfile": ["OnnxClassifier"],
            "options": ["ExportConfig"],
        },
    )

__all__ = ["ExportConfig", "OnnxClassifier", "export_onnx", "export_run"]
