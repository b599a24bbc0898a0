"""`python -m ser_embed.pretrain FOLDER... --out FOLDER`."""

from ser_embed.command import Outcome, run_command
from ser_embed.pretrain.options import PretrainConfig

__all__ = ["PretrainConfig", "main"]


def _run(config: PretrainConfig) -> Outcome:
    from ser_embed.pretrain.pretraining import pretrain_encoder

    return pretrain_encoder(config)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.pretrain`."""
    return run_command(_run, PretrainConfig, "python -m ser_embed.pretrain", argv)


if __name__ == "__main__":
    raise SystemExit(main())
