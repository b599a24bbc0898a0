"""A run as one ONNX file or as a folder for transformers."""
