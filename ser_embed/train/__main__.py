"""`python -m ser_embed.train`: train a head on cached features and report on it."""

from ser_embed.command import Outcome, run_command
from ser_embed.train.options import TrainConfig

__all__ = ["TrainConfig", "main"]


def _run(config: TrainConfig) -> Outcome:
    from ser_embed.train.training import train

    return train(config)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.train`."""
    return run_command(_run, TrainConfig, "python -m ser_embed.train", argv)


if __name__ == "__main__":
    raise SystemExit(main())
