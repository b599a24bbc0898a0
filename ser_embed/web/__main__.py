"""`python -m ser_embed.web`: the classifier as a page in the browser."""

from collections.abc import Sequence

from ser_embed.command import Outcome, run_command
from ser_embed.web.options import WebConfig

__all__ = ["WebConfig", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m ser_embed.web`."""
    return run_command(_run, WebConfig, "python -m ser_embed.web", argv)


def _run(config: WebConfig) -> Outcome:
    from ser_embed.web.server import serve

    return serve(config)


if __name__ == "__main__":
    raise SystemExit(main())
