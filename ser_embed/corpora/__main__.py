"""`python -m ser_embed.corpora`."""

from ser_embed.corpora.folders import CorporaConfig, main

__all__ = ["CorporaConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
