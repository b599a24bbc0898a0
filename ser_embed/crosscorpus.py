"""`python -m ser_embed.crosscorpus`."""

from ser_embed.command import Outcome, run_command
from ser_embed.evaluate import CrossCorpusConfig

__all__ = ["CrossCorpusConfig", "main"]


def _run(config: CrossCorpusConfig) -> Outcome:
    from ser_embed.evaluate import cross_corpus

    return cross_corpus(config)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.crosscorpus`."""
    return run_command(_run, CrossCorpusConfig, "python -m ser_embed.crosscorpus", argv)


if __name__ == "__main__":
    raise SystemExit(main())
