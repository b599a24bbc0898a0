"""`python -m ser_embed.finetune`."""

from ser_embed.finetune.stage import FinetuneConfig, main

__all__ = ["FinetuneConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
