"""`python -m ser_embed.corpora`: what a corpus holds and what is wrong with it."""

from collections.abc import Sequence

from ser_embed.command import DONE, SOME_CLIPS_FAILED, Outcome, run_command
from ser_embed.corpora.options import CorporaConfig

__all__ = ["CorporaConfig", "main"]


def _run(config: CorporaConfig) -> Outcome:
    from ser_embed.corpora.audit import audit, print_table
    from ser_embed.corpora.listing import listing_of

    result = audit(listing_of(config.root, config.corpus, config.csv), config.quiet)
    if not config.json:
        print_table(result)
    return Outcome(result, SOME_CLIPS_FAILED if result["faults"] else DONE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m ser_embed.corpora`."""
    return run_command(_run, CorporaConfig, "python -m ser_embed.corpora", argv)


if __name__ == "__main__":
    raise SystemExit(main())
