"""Files and folders, classified one by one: a line and a row of the result each."""

import logging
import sys
from pathlib import Path
from typing import Any

from ser_embed.audio import AudioFile
from ser_embed.command import DONE, SOME_CLIPS_FAILED, Outcome
from ser_embed.errors import AudioError
from ser_embed.predict.classifier import Classifier
from ser_embed.predict.options import PredictConfig
from ser_embed.progress import track

__all__ = ["predict_files"]

log = logging.getLogger(__name__)

_FEW_FILES = 20  # whose lines show well enough how far it is


def predict_files(config: PredictConfig) -> Outcome:
    """Classify files and print a line each.

    Raises:
        SerEmbedError: No run, or no file to classify.
    """
    if not config.files:
        raise AudioError("name one or more audio files or folders")
    paths: list[Path] = []
    for given in config.files:
        found = AudioFile.find(given) if given.is_dir() else [given]
        if not found:
            raise AudioError(f"{given}: no audio file in it")
        paths += found
    classifier = Classifier.load(config.run, config.runs_dir, config.backend)
    log.info("%s: %s", classifier.run, classifier.about)
    width = max(len(str(path)) for path in paths)
    results: list[dict[str, Any]] = []
    quiet = config.quiet or len(paths) < _FEW_FILES
    for path in track(paths, "classify", "file", quiet=quiet):
        try:
            prediction = classifier.classify_file(path)
        except AudioError as error:
            print(f"failed: {error}", file=sys.stderr)
            results.append({"file": str(path), "error": str(error)})
            continue
        label, probabilities = prediction.label, prediction.probabilities
        results.append({"file": str(path), "label": label, "probabilities": probabilities})
        if not config.json:
            listed = "  ".join(f"{name} {p:.1%}" for name, p in probabilities.items())
            print(f"{path!s:{width}}  {label:10} {listed}")
    failed = sum("error" in result for result in results)
    if failed == len(paths):
        raise AudioError(f"none of {failed} files could be classified")
    result = {"files": results, "run": str(classifier.run)}
    return Outcome(result, SOME_CLIPS_FAILED if failed else DONE)
