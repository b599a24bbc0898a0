"""`python -m ser_embed.evaluate`: the report again, of a run on its own test part or other clips.

`python -m ser_embed.evaluate RUN` scores the run's own test part;
`python -m ser_embed.evaluate RUN STORE...` every clip of other stores: how the run does on another
corpus, and what of it was trained on. A fine-tuned run takes audio and no stores:
`python -m ser_embed.evaluate RUN --audio ROOT --corpus NAME`. `--html` makes a page of it,
`--against OTHER` says whether the run is better than another on the clips both were tested on.
"""

from ser_embed.command import Outcome, run_command
from ser_embed.evaluate.options import EvaluateConfig

__all__ = ["EvaluateConfig", "main"]


def _run(config: EvaluateConfig) -> Outcome:
    from ser_embed.evaluate.evaluation import evaluate_run

    return evaluate_run(config)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.evaluate`."""
    return run_command(_run, EvaluateConfig, "python -m ser_embed.evaluate", argv)


if __name__ == "__main__":
    raise SystemExit(main())
