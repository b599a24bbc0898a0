"""`python -m ser_embed.live`, which is `python Main.py`."""

from collections.abc import Sequence

from ser_embed.command import Outcome, run_command
from ser_embed.live.options import LiveConfig

__all__ = ["LiveConfig", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python Main.py`."""
    return run_command(_run, LiveConfig, "python Main.py", argv)


def _run(config: LiveConfig) -> Outcome:
    from ser_embed.live.listen import listen

    return listen(config)


if __name__ == "__main__":
    raise SystemExit(main())
