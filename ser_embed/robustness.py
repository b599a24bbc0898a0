"""`python -m ser_embed.robustness`."""

from ser_embed.command import Outcome, run_command
from ser_embed.evaluate import RobustnessConfig

__all__ = ["RobustnessConfig", "main"]


def _run(config: RobustnessConfig) -> Outcome:
    from ser_embed.evaluate import measure_robustness

    return measure_robustness(config)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.robustness`."""
    return run_command(_run, RobustnessConfig, "python -m ser_embed.robustness", argv)


if __name__ == "__main__":
    raise SystemExit(main())
