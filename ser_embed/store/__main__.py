"""`python -m ser_embed.store`."""

from ser_embed.store.reader import StoreConfig, main

__all__ = ["StoreConfig", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
