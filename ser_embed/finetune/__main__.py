"""`python -m ser_embed.finetune`: fine-tune an encoder and a classifier end to end."""

from ser_embed.command import Outcome, run_command
from ser_embed.finetune.options import FinetuneConfig

__all__ = ["FinetuneConfig", "main"]


def _run(config: FinetuneConfig) -> Outcome:
    from ser_embed.finetune.tuning import finetune

    return finetune(config)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.finetune`."""
    return run_command(_run, FinetuneConfig, "python -m ser_embed.finetune", argv)


if __name__ == "__main__":
    raise SystemExit(main())
