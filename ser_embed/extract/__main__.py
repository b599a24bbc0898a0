"""`python -m ser_embed.extract`: encode every clip of a corpus once, and keep the features.

`python -m ser_embed.extract ROOT --corpus ravdess` makes or completes
`artifacts/features/ravdess-<encoder>-<key>.h5`. Run it again after a kill, or after clips were
added or changed, and it does only what is missing.
"""

from ser_embed.command import Outcome, run_command
from ser_embed.extract.options import ExtractConfig

__all__ = ["ExtractConfig", "main"]


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.extract`."""
    return run_command(_run, ExtractConfig, "python -m ser_embed.extract", argv)


def _run(config: ExtractConfig) -> Outcome:
    from ser_embed.extract.corpus import extract

    return extract(config)


if __name__ == "__main__":
    raise SystemExit(main())
