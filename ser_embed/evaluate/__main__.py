"""`python -m ser_embed.evaluate`."""

from ser_embed.evaluate.stage import EvaluateConfig, main

__all__ = ["EvaluateConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
