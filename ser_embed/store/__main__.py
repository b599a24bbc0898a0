"""`python -m ser_embed.store`: say what a feature store holds, and whether it is whole."""

from ser_embed.command import Outcome, run_command
from ser_embed.store.options import StoreConfig

__all__ = ["StoreConfig", "main"]


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.store`."""
    return run_command(_run, StoreConfig, "python -m ser_embed.store", argv)


def _run(config: StoreConfig) -> Outcome:
    from ser_embed.store.checking import describe

    return describe(config)


if __name__ == "__main__":
    raise SystemExit(main())
