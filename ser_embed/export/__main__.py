"""`python -m ser_embed.export RUN --out F.onnx`, or `--to-hub FOLDER`."""

from ser_embed.command import Outcome, run_command
from ser_embed.export.options import ExportConfig

__all__ = ["ExportConfig", "main"]


def _run(config: ExportConfig) -> Outcome:
    from ser_embed.export.exporting import export_run

    return export_run(config)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.export`."""
    return run_command(_run, ExportConfig, "python -m ser_embed.export", argv)


if __name__ == "__main__":
    raise SystemExit(main())
