"""`python -m ser_embed.web`."""

from ser_embed.web.stage import WebConfig, main

__all__ = ["WebConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
