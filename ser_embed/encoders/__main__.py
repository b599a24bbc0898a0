"""`python -m ser_embed.encoders`: the encoders that have a name."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ser_embed.bundled import BUNDLED_ENCODERS
from ser_embed.command import DONE, Outcome, run_command
from ser_embed.encoders.options import EncodersConfig
from ser_embed.encoders.registry import ENCODERS, EncoderSpec

__all__ = ["EncodersConfig", "encoders", "main"]


def encoders() -> list[dict[str, Any]]:
    """Return each encoder's `name`, what its `EncoderSpec` says, and whether it is `here`."""
    return [{"name": name, **asdict(spec), "here": _is_here(spec)} for name, spec in
            ENCODERS.items()]  # fmt: skip


def _is_here(spec: EncoderSpec) -> bool:
    """Whether an encoder loads without a network."""
    if spec.source == "bundled":
        return (BUNDLED_ENCODERS / spec.location / "model.safetensors").is_file()
    if spec.source == "torchaudio":
        cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
        home = os.environ.get("TORCH_HOME", f"{cache}/torch")
        return (Path(home).expanduser() / "hub" / "checkpoints" / spec.file).is_file()
    if spec.source != "hub":
        return True
    import huggingface_hub  # takes a moment, too long for --help

    files = ("model.safetensors", "pytorch_model.bin")
    found = (huggingface_hub.try_to_load_from_cache(spec.location, file) for file in files)
    return any(isinstance(path, str) for path in found)


def _run(config: EncodersConfig) -> Outcome:
    rows = encoders()
    if not config.json:
        _show(rows)
    return Outcome({"encoders": rows}, DONE)


def _show(rows: list[dict[str, Any]]) -> None:
    """Print a table, a line an encoder."""
    header = ("name", "family", "parameters", "layers", "licence", "from", "here", "about")
    lines = [header] + [
        (row["name"], row["family"], f"{row['parameters']:g} M", str(row["layers"]),
         row["licence"], row["location"] if row["source"] == "hub" else row["source"],
         "yes" if row["here"] else "no", row["about"])
        for row in rows
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{cell:{n}}" for cell, n in zip(line, widths, strict=True)).rstrip())


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.encoders`."""
    return run_command(_run, EncodersConfig, "python -m ser_embed.encoders", argv)


if __name__ == "__main__":
    raise SystemExit(main())
