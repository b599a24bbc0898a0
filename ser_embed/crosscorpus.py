"""`python -m ser_embed.crosscorpus`."""

from ser_embed.evaluate.crosscorpus import CrossCorpusConfig, main

__all__ = ["CrossCorpusConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
