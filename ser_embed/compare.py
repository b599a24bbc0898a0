"""`python -m ser_embed.compare`."""

from ser_embed.command import Outcome, run_command
from ser_embed.evaluate import CompareConfig

__all__ = ["CompareConfig", "main"]


def _run(config: CompareConfig) -> Outcome:
    from ser_embed.evaluate import compare_models

    return compare_models(config)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.compare`."""
    return run_command(_run, CompareConfig, "python -m ser_embed.compare", argv)


if __name__ == "__main__":
    raise SystemExit(main())
