"""`python -m ser_embed.train`."""

from ser_embed.train.stage import TrainConfig, main

__all__ = ["TrainConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
