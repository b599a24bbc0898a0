"""`python -m ser_embed.live`."""

from ser_embed.live.stage import LiveConfig, main

__all__ = ["LiveConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
