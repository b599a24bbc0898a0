"""An exported file compared with the classifier it was made of, and on labelled clips."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_embed.audio import AudioFile
from ser_embed.corpora import LabelScheme, Listing
from ser_embed.errors import AudioError, ExportError
from ser_embed.predict import Classifier
from ser_embed.progress import track
from ser_embed.reports import scores_of

__all__ = [
    "TOLERANCE", "Runner", "agreement", "differences_of", "measure_accuracy", "require_equal",
    "waveform_of",
]  # fmt: skip

TOLERANCE = 1e-4  # between an export's probabilities and the classifier's

Runner = Callable[[np.ndarray], np.ndarray]  # waveforms (B, S) to probabilities (B, C)


def waveform_of(
    classifier: Classifier, path: Path, start: float | None = None, end: float | None = None
) -> np.ndarray:
    """Return a file's first part as its graph takes it: float32 (1, S), trimmed, cut, filled.

    Args:
        classifier: Whose clip length and filling count.
        path: The file.
        start: Where the clip begins in it, in seconds; None: at its beginning.
        end: Where it ends; None: at the file's end.

    Raises:
        AudioError: The file can't be used.
    """
    settings = classifier.settings
    clip = AudioFile(path).read(settings.seconds, settings.trim, start, end)
    return clip.fit(settings.seconds, settings.fill, settings.seed)[None]


def differences_of(run: Runner, classifier: Classifier, paths: Sequence[Path]) -> list[float]:
    """Return the largest difference of each clip's probabilities from the classifier's.

    The clips are run one by one, and four of them, cut to one length, also as a batch.

    Raises:
        AudioError: A file can't be used.
    """
    waveforms = [waveform_of(classifier, path) for path in paths]
    wanted = [list(classifier.classify_file(path).probabilities.values()) for path in paths]
    found = [float(np.abs(run(w)[0] - p).max()) for w, p in zip(waveforms, wanted, strict=True)]
    few = [waveforms[number % len(waveforms)] for number in range(4)]
    shortest = min(waveform.shape[1] for waveform in few)
    batch = np.concatenate([waveform[:, :shortest] for waveform in few])
    alone = np.concatenate([run(row[None]) for row in batch])
    return [*found, float(np.abs(run(batch) - alone).max())]


def require_equal(what: Path, differences: Sequence[float]) -> dict[str, float]:
    """Return `largest_difference` and the `tolerance` that it is within.

    Raises:
        ExportError: It is larger, or not a number.
    """
    largest = float(np.max(differences))  # unlike Python's max, not a number if one isn't
    if not largest <= TOLERANCE:
        raise ExportError(
            f"{what}: not written: its probabilities differ by {largest:.1e} from the "
            f"classifier's, more than {TOLERANCE:.0e}"
        )
    return {"largest_difference": largest, "tolerance": TOLERANCE}


def agreement(
    run: Runner, other: Runner, classifier: Classifier, paths: Sequence[Path]
) -> dict[str, float]:
    """Return `clips`, `label_agreement` (0 to 1) and `largest_difference` of two exports."""
    waveforms = [waveform_of(classifier, path) for path in paths]
    ours, theirs = (np.concatenate([each(w) for w in waveforms]) for each in (run, other))
    return {
        "clips": len(paths),
        "label_agreement": float((ours.argmax(1) == theirs.argmax(1)).mean()),
        "largest_difference": float(np.abs(ours - theirs).max()),
    }


def measure_accuracy(
    runs: Mapping[str, Runner], classifier: Classifier, listing: Listing, quiet: bool = False
) -> dict[str, Any]:
    """Score exports on labelled clips.

    Args:
        runs: The exports by name.
        classifier: Whose settings and label scheme count.
        listing: The clips; those whose emotion the scheme leaves out are passed over.
        quiet: Whether the progress is hidden.

    Returns:
        `corpus`, `clips`, `failed`, whether the run was `trained_on` this corpus, and for each
        name its `wa` and `uar`.

    Raises:
        LabelError: An emotion that the scheme doesn't name.
        ExportError: No clip can be used.
    """
    card = classifier.card
    scheme = LabelScheme(card["labels"]["name"], classifier.classes, card["labels"]["mapping"])
    clips = listing.utterances
    labels = scheme.encode([c.emotion for c in clips], [c.intensity for c in clips])
    known = [(clip, label) for clip, label in zip(clips, labels, strict=True) if label >= 0]
    failed, truth = 0, list[int]()
    predicted: dict[str, list[int]] = {name: [] for name in runs}
    for clip, label in track(known, f"measure on {listing.corpus}", "clip", quiet=quiet):
        try:
            waveform = waveform_of(classifier, clip.path, clip.start, clip.end)
        except AudioError as error:
            failed += 1
            print(f"failed: {error}", file=sys.stderr)
            continue
        truth.append(int(label))
        for name, run in runs.items():
            predicted[name].append(int(run(waveform).argmax()))
    if failed == len(known):
        raise ExportError(f"{listing.root}: none of its clips can be measured on")
    measured = {}
    for name, found in predicted.items():
        scores = scores_of(np.array(truth), np.array(found), len(scheme.classes))
        measured[name] = {"wa": scores["wa"], "uar": scores["uar"]}
    return {
        "corpus": listing.corpus, "clips": len(known) - failed, "failed": failed,
        "trained_on": listing.corpus in card["corpora"], **measured,
    }  # fmt: skip
