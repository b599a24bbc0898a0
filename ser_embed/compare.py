"""`python -m ser_embed.compare`."""

from ser_embed.evaluate.compare import CompareConfig, main

__all__ = ["CompareConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
