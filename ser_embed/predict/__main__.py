"""`python -m ser_embed.predict`."""

from ser_embed.predict.classifier import PredictConfig, main

__all__ = ["PredictConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
