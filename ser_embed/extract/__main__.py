"""`python -m ser_embed.extract`."""

from ser_embed.extract.stage import ExtractConfig, main

__all__ = ["ExtractConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
