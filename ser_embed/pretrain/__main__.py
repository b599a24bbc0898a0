"""`python -m ser_embed.pretrain`."""

from ser_embed.pretrain.stage import PretrainConfig, main

__all__ = ["PretrainConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
