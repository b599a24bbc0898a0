"""A small corpus of synthetic emotional clips, made from a seed: `python -m ser_embed.demo FOLDER`.

The clips let the package be shown and tested without a third party's recordings; `synthesiser.py`
makes them. Scores on this corpus say that the software works, nothing about people.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import soundfile
import tyro

from ser_embed.audio import SAMPLE_RATE
from ser_embed.command import Options, Outcome, run_command
from ser_embed.corpora.synthesiser import (
    ACTORS,
    EMOTIONS,
    INTENSITIES,
    STATEMENTS,
    code_of,
    synthesise,
)
from ser_embed.errors import SerEmbedError

__all__ = ["main", "write_demo_corpus"]


def write_demo_corpus(folder: Path, seed: int = 0) -> list[Path]:
    """Write 360 clips as `Actor_NN/03-01-EE-II-SS-RR-NN.ogg` (RAVDESS's names) and a README.md.

    Args:
        folder: Where to; made if missing, files of the same names are replaced.
        seed: Non-negative seed of all clips.

    Returns:
        Paths of the clips, sorted.

    Raises:
        ValueError: The seed is negative.
        OSError: The folder can't be written.
    """
    paths = []
    for clip in product(EMOTIONS, INTENSITIES, STATEMENTS, (1, 2), ACTORS):
        if clip[:2] == ("neutral", "strong"):
            continue
        samples = synthesise(*clip, seed)
        name = "-".join(f"{number:02d}" for number in (3, 1, *code_of(*clip)))
        path = folder / f"Actor_{clip[-1]:02d}" / f"{name}.ogg"
        path.parent.mkdir(parents=True, exist_ok=True)
        # About 20 kbit/s, which keeps the whole corpus under 3 MB.
        soundfile.write(
            path, samples, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=0.94
        )
        paths.append(path)
    (folder / "README.md").write_text(_README.format(n=len(paths), seed=seed), encoding="utf-8")
    return sorted(paths)


_README = """\
# Synthetic demo corpus

{n} clips of synthetic, speech-like nonsense syllables: eight emotions, two intensities, two
statements, two repetitions, six voices; 16 kHz mono, Ogg Opus. The file names follow RAVDESS's
rule `modality-channel-emotion-intensity-statement-repetition-actor`.

All of it was made by `python -m ser_embed.demo FOLDER --seed {seed}`. No person's voice and no
recording is in it. Scores on it show that the software works and say nothing about real speech.

Dedicated to the public domain: CC0 1.0, <https://creativecommons.org/publicdomain/zero/1.0/>.
"""


@dataclass(frozen=True)
class DemoConfig(Options):
    """Write the synthetic demo corpus: 360 short clips named as RAVDESS's are."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder that gets `Actor_01` to `Actor_06` and a README.md."""
    seed: int = 0
    """Seed of all clips; the shipped corpus has 0."""


def make_demo(config: DemoConfig) -> Outcome:
    """Write the corpus."""
    try:
        paths = write_demo_corpus(config.folder, config.seed)
    except (ValueError, soundfile.LibsndfileError) as error:
        raise SerEmbedError(str(error)) from error
    if not config.json:
        print(f"{config.folder}: {len(paths)} clips")
    return Outcome({"folder": str(config.folder), "clips": len(paths)})


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.demo`."""
    return run_command(make_demo, DemoConfig, "python -m ser_embed.demo", argv)


if __name__ == "__main__":
    raise SystemExit(main())
