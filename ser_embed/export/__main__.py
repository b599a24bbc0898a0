"""`python -m ser_embed.export`."""

from ser_embed.export.stage import ExportConfig, main

__all__ = ["ExportConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
