"""A trained run as a classifier of waveforms and files.

Preprocessing and features are those of training, down to the seed of the random fill, so a file
that was encoded in stage 1 gets the probabilities that the report was made from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ser_embed.audio import SAMPLE_RATE, AudioFile, Clip, Resampler
from ser_embed.bundled import BUNDLED_HEADS, DEFAULT_HEAD
from ser_embed.command import RUNS_DIR
from ser_embed.encoders import BackendName, Encoder, load_encoder
from ser_embed.errors import AudioError, HeadError
from ser_embed.finetune import Network, is_network, load_network
from ser_embed.heads import calibrated, load_head, read_card
from ser_embed.store import FeatureSettings

__all__ = ["Classifier", "Prediction", "find_run"]


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one clip.

    Attributes:
        label: The most probable class.
        probabilities: Class to probability, calibrated on validation data; they sum to 1.
    """

    label: str
    probabilities: dict[str, float]

    @property
    def confidence(self) -> float:
        """Probability of the label."""
        return self.probabilities[self.label]


def find_run(run: Path | None = None, runs_dir: Path = RUNS_DIR) -> Path:
    """Return the folder of a run.

    Args:
        run: A run's folder, or the name of a head that ships with the project. None for the
            newest finished run in `runs_dir`, else the bundled `sentiment3`.
        runs_dir: Where the newest is looked for.

    Raises:
        HeadError: There is none.
    """
    bundled = sorted(path.name for path in BUNDLED_HEADS.glob("*") if path.is_dir())
    if run is not None:
        if not run.exists() and str(run) in bundled:
            return BUNDLED_HEADS / run
        if not run.exists():
            raise HeadError(
                f"{run}: no trained head there; heads that ship with the project: "
                f"{', '.join(bundled) or 'none'}"
            )
        return run
    finished = list(runs_dir.glob("*/report.json"))
    if finished:
        return max(finished, key=lambda path: path.stat().st_mtime).parent
    if DEFAULT_HEAD in bundled:
        return BUNDLED_HEADS / DEFAULT_HEAD
    raise HeadError(
        f"no trained run in {runs_dir}: run python -m ser_embed.extract and then "
        "python -m ser_embed.train --early-stop, or name one with --run"
    )


class Classifier:
    """Encoder and head, or the heads of all folds averaged, as one function of a waveform.

    Attributes:
        classes: Class names.
        seconds: Length of the clips it was trained on.
        run: Folder it was loaded from.
        about: One line on what it was trained on.
        card: The card of its (first) head.
    """

    def __init__(self, run: Path, heads: Sequence[tuple[Any, dict[str, Any]]],
                 encoder: Encoder | None) -> None:  # fmt: skip
        """Use `Classifier.load`."""
        self.run, self.heads, self.encoder = run, list(heads), encoder
        self.card = self.heads[0][1]
        self.classes: tuple[str, ...] = tuple(self.card["classes"])
        self.settings = self.settings_of(self.card, run)
        self.seconds = self.settings.seconds
        self.about = _about(self.card, len(self.heads))

    @classmethod
    def load(
        cls, run: Path | None = None, runs_dir: Path = RUNS_DIR, backend: BackendName = "torch"
    ) -> "Classifier":
        """Load a run, by default the newest, else the bundled one.

        Args:
            run: Folder of a run, or the name of a bundled head.
            runs_dir: Where the newest is looked for.
            backend: Engine of the encoder; torch starts quickest. A fine-tuned run has no
                encoder of its own, and runs by torch.

        Raises:
            HeadError: No run, a damaged one, or an encoder with other weights than it had.
            EncoderError: The encoder can't be loaded.
        """
        folder = find_run(run, runs_dir)
        folders = cls.head_folders(folder)
        if is_network(read_card(folders[0])):
            return _EndToEnd(folder, [load_network(path) for path in folders], None)
        heads = [load_head(path) for path in folders]
        settings = cls.settings_of(heads[0][1], folder)
        encoder = load_encoder(
            settings.encoder, settings.layer, backend=backend, precision=settings.precision,
            seed=settings.seed, context=settings.context,
        )  # fmt: skip
        if encoder.weights != settings.weights:
            raise HeadError(
                f"{folder}: trained on encoder {settings.encoder} with weights "
                f"{settings.weights[:12]}, which now has {encoder.weights[:12]}; extract and train "
                "again"
            )
        if settings.configuration not in ("", encoder.configuration):
            raise HeadError(
                f"{folder}: trained on encoder {settings.encoder} with another configuration "
                "(config.json, or do_normalize in preprocessor_config.json) than it has now; put "
                "the files back, or extract and train again"
            )
        return cls(folder, heads, encoder)

    @staticmethod
    def head_folders(run: Path) -> list[Path]:
        """Return the folders of a run's heads: the run itself, or one a fold.

        Raises:
            HeadError: There is no head in it.
        """
        if (run / "card.json").is_file():
            return [run]
        folders = sorted(path.parent for path in run.glob("*/card.json"))
        if not folders:
            raise HeadError(f"{run}: no trained head there (card.json is missing)")
        if not (run / "result.json").is_file():
            raise HeadError(
                f"{run}: a cross-validation that was stopped after {len(folders)} folds; run the "
                "same train command again, and it goes on"
            )
        return folders

    @staticmethod
    def settings_of(card: dict[str, Any], run: Path) -> FeatureSettings:
        """Return the settings of the features that a run's head takes, from its card.

        Raises:
            HeadError: The card doesn't say, or says what this version doesn't know.
        """
        try:
            return FeatureSettings(**card["features"])
        except (KeyError, TypeError) as error:
            raise HeadError(
                f"{run}: card.json doesn't say what features it takes ({error}); train again"
            ) from error

    def classify(self, samples: np.ndarray, rate: int = SAMPLE_RATE) -> Prediction:
        """Classify one clip.

        Args:
            samples: float32 of shape (n,) or (n, n_channels). Beyond the clip length the first
                part counts, as in training; a shorter clip is filled as in training.
            rate: Its sample rate in Hz.

        Raises:
            AudioError: Under 25 ms, silent or not finite.
        """
        mono = Resampler(rate).whole(samples)
        finite = bool(np.isfinite(mono).all())
        clip = Clip.of(mono, self.seconds, self.settings.trim and finite)
        if len(clip.samples) < Clip.MIN_SAMPLES:
            raise AudioError(
                f"{len(clip.samples)} samples at 16 kHz; at least {Clip.MIN_SAMPLES} are needed"
            )
        if not finite or not clip.samples.any():
            raise AudioError("the samples are all zero, or not finite")
        return self._predict([clip])[0]

    def classify_file(self, path: Path) -> Prediction:
        """Classify the first part of a file, as stage 1 encoded it.

        Raises:
            AudioError: The file can't be used; the message says why.
        """
        return self._predict([AudioFile(path).read(self.seconds, self.settings.trim)])[0]

    def _predict(self, clips: Sequence[Clip]) -> list[Prediction]:
        settings = self.settings
        waveforms = [clip.fit(settings.seconds, settings.fill, settings.seed) for clip in clips]
        return [self._average(each) for each in self._log_probabilities(waveforms)]

    def _log_probabilities(self, waveforms: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """Yield for each waveform the log-probabilities (1, C) of each head."""
        assert self.encoder is not None
        norm, pool = self.settings.norm, self.settings.pool
        found = self.encoder.features(waveforms, norm, pool)
        for waveform, (features, _) in zip(waveforms, found, strict=True):
            # Through the stored type, so that the head sees what it was trained on.
            stored = features.astype(self.settings.dtype).astype(np.float32)
            batch = torch.from_numpy(stored).unsqueeze(0)  # (1, T, D), or what the store holds
            frames = torch.tensor([self.encoder.n_frames(len(waveform))])
            with torch.inference_mode():
                yield [head(batch, frames).numpy() for head, _ in self.heads]

    def _average(self, each: Sequence[np.ndarray]) -> Prediction:
        """Average the heads' calibrated probabilities."""
        temperatures = [card["temperature"] for _, card in self.heads]
        mean = np.mean(
            [calibrated(one, t)[0] for one, t in zip(each, temperatures, strict=True)], axis=0
        )
        probabilities = dict(zip(self.classes, map(float, mean), strict=True))
        return Prediction(max(probabilities, key=lambda c: probabilities[c]), probabilities)


class _EndToEnd(Classifier):
    """The same of a fine-tuned run, whose networks take waveforms."""

    heads: list[tuple[Network, dict[str, Any]]]

    def _log_probabilities(self, waveforms: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
        for waveform in waveforms:
            yield [network.log_probabilities([waveform]) for network, _ in self.heads]


def _about(card: dict[str, Any], n_heads: int) -> str:
    corpora = ", ".join(f"{name} ({count} clips)" for name, count in card["corpora"].items())
    text = (
        f"{card['labels']['name']} on {corpora}, encoder {card['features']['encoder']}"
        f"{' fine-tuned' if is_network(card) else ''}, head {card['head']['name']}, split "
        f"{card['split']['rule']}"
    )
    if n_heads > 1:
        text += f", {n_heads} folds averaged"
    if card["demo"]:
        text += "; trained on SYNTHETIC demo clips, not meant for real speech"
    elif not card["encoder_trained"]:
        text += "; the encoder is untrained (a control)"
    return text
