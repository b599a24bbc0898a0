"""`python -m ser_embed.predict`: classify audio files."""

from collections.abc import Sequence

from ser_embed.command import Outcome, run_command
from ser_embed.predict.options import PredictConfig

__all__ = ["PredictConfig", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m ser_embed.predict`."""
    return run_command(_run, PredictConfig, "python -m ser_embed.predict", argv)


def _run(config: PredictConfig) -> Outcome:
    from ser_embed.predict.files import predict_files

    return predict_files(config)


if __name__ == "__main__":
    raise SystemExit(main())
