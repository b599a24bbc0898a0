"""`python -m ser_embed.robustness`."""

from ser_embed.evaluate.robustness import RobustnessConfig, main

__all__ = ["RobustnessConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
