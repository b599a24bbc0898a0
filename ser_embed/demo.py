"""`python -m ser_embed.demo`."""

from ser_embed.corpora.demo import DemoConfig, main

__all__ = ["DemoConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
