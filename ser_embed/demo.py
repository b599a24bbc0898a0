"""`python -m ser_embed.demo FOLDER`: a small corpus of synthetic clips, made from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ser_embed.command import Options, Outcome, run_command
from ser_embed.errors import SerEmbedError

__all__ = ["DemoConfig", "main"]


@dataclass(frozen=True)
class DemoConfig(Options):
    """Write the synthetic demo corpus: 360 short clips named as RAVDESS's are."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder that gets `Actor_01` to `Actor_06` and a README.md."""
    seed: int = 0
    """Seed of all clips; the shipped corpus has 0."""


def _run(config: DemoConfig) -> Outcome:
    from ser_embed.corpora.synthesiser import write_demo_corpus

    try:
        paths = write_demo_corpus(config.folder, config.seed)
    except (ValueError, RuntimeError) as error:  # soundfile's own are RuntimeErrors
        raise SerEmbedError(str(error)) from error
    if not config.json:
        print(f"{config.folder}: {len(paths)} clips")
    return Outcome({"folder": str(config.folder), "clips": len(paths)})


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m ser_embed.demo`."""
    return run_command(_run, DemoConfig, "python -m ser_embed.demo", argv)


if __name__ == "__main__":
    raise SystemExit(main())
