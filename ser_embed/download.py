"""`python -m ser_embed.download`."""

from ser_embed.corpora.fetch import DownloadConfig, main

__all__ = ["DownloadConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
