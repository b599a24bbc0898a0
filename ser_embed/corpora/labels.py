"""Emotions, and the schemes that map them to classes.

A corpus gives each clip an emotion (and sometimes an intensity); a `LabelScheme` maps that to
the class a head is trained on. A scheme names every emotion that may occur: one that is left out
on purpose is mapped to None, one that isn't named is an error.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ser_embed.errors import LabelError

__all__ = ["EMOTIONS", "SCHEMES", "LabelScheme", "canonical_emotion"]

EMOTIONS = (
    "neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised", "boredom",
)  # fmt: skip
"""The vocabulary that the known corpora are read into."""

_SYNONYMS = {
    "neu": "neutral", "n": "neutral",
    "hap": "happy", "happiness": "happy", "joy": "happy", "joyful": "happy",
    "sadness": "sad",
    "ang": "angry", "anger": "angry",
    "fea": "fearful", "fear": "fearful", "anxiety": "fearful",
    "dis": "disgust", "disgusted": "disgust",
    "ps": "surprised", "sur": "surprised", "surprise": "surprised",
    "pleasant_surprise": "surprised",
    "bored": "boredom",
}  # fmt: skip


def canonical_emotion(word: str) -> str:
    """Return the vocabulary's word for `word`, or `word` in lower case if there is none.

    >>> canonical_emotion("Anger"), canonical_emotion("excited")
    ('angry', 'excited')
    """
    word = word.strip().lower().replace(" ", "_")
    return _SYNONYMS.get(word, word)


@dataclass(frozen=True)
class LabelScheme:
    """A mapping from emotions to classes.

    Attributes:
        name: How `--labels` names it.
        classes: Class names; their order is the order of a head's outputs.
        mapping: From an emotion, or `emotion/intensity` where the intensity matters, to a
            class, or to None for an emotion that is left out on purpose.
    """

    name: str
    classes: tuple[str, ...]
    mapping: Mapping[str, str | None]

    @classmethod
    def load(cls, name_or_file: str) -> "LabelScheme":
        """Return a scheme by name, or one from a user's mapping file.

        A mapping file is CSV with the header `emotion,label`, or a JSON object from emotion to
        label. An emotion may be written `emotion/intensity`. An empty label (JSON: null) leaves
        the clips out. Classes are ordered as they first appear.

        Raises:
            LabelError: No such scheme or file, or a file that names no class.
        """
        if name_or_file in SCHEMES:
            return SCHEMES[name_or_file]
        path = Path(name_or_file)
        if not path.is_file():
            raise LabelError(
                f"{name_or_file!r} is neither a label scheme ({', '.join(SCHEMES)}) nor a mapping "
                "file"
            )
        try:
            mapping = _mapping(_read_mapping(path))
        except (ValueError, KeyError, AttributeError, RecursionError, csv.Error) as error:
            raise LabelError(
                f"{path}: not a mapping file ({error}); it must be CSV with the header "
                "emotion,label or a JSON object from emotion to label"
            ) from error
        classes = tuple(dict.fromkeys(label for label in mapping.values() if label))
        if len(classes) < 2:
            raise LabelError(
                f"{path}: names {len(classes)} classes; a classifier needs two or more"
            )
        return cls(path.stem, classes, mapping)

    def label(self, emotion: str, intensity: str = "") -> str | None:
        """Return the class of an emotion, or None if the scheme leaves it out.

        Raises:
            LabelError: The scheme doesn't name this emotion.
        """
        for key in (f"{emotion}/{intensity}", emotion):
            if key in self.mapping:
                return self.mapping[key]
        raise LabelError(self._unknown({f"{emotion}/{intensity}" if intensity else emotion: 1}))

    def encode(self, emotions: Iterable[str], intensities: Iterable[str]) -> list[int]:
        """Return class indices, -1 where the scheme leaves the emotion out.

        Raises:
            LabelError: Some emotions aren't named by the scheme; all of them are listed.
        """
        index: dict[str | None, int] = {name: i for i, name in enumerate(self.classes)}
        index[None] = -1
        labels, unknown = [], Counter[str]()
        for emotion, intensity in zip(emotions, intensities, strict=True):
            try:
                labels.append(index[self.label(emotion, intensity)])
            except LabelError:
                unknown[f"{emotion}/{intensity}" if intensity else emotion] += 1
        if unknown:
            raise LabelError(self._unknown(unknown))
        return labels

    def _unknown(self, unknown: Mapping[str, int]) -> str:
        listed = ", ".join(f"{word!r} ({count} clips)" for word, count in sorted(unknown.items()))
        return (
            f"the label scheme {self.name!r} doesn't name {listed}; it names "
            f"{', '.join(sorted(self.mapping))}. Give a mapping file instead, "
            "--labels FILE.csv with the header emotion,label (an empty label leaves clips out)"
        )


def _intensity21() -> LabelScheme:
    """CREMA-D's 21 classes: five emotions at four intensities, and neutral with none."""
    codes = {"angry": "ANG", "disgust": "DIS", "fearful": "FEA", "happy": "HAP", "sad": "SAD"}
    levels = {"high": "HI", "low": "LO", "medium": "MD", "": "XX"}
    mapping: dict[str, str | None] = {
        f"{emotion}/{level}": f"{code}_{suffix}"
        for emotion, code in codes.items()
        for level, suffix in levels.items()
    }
    mapping["neutral/"] = "NEU_XX"
    return LabelScheme("intensity21", tuple(sorted(str(v) for v in mapping.values())), mapping)


_EIGHT = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")

SCHEMES: dict[str, LabelScheme] = {
    # The two-stage paper's three classes.
    "sentiment3": LabelScheme(
        "sentiment3",
        ("positive", "neutral", "negative"),
        {
            "happy": "positive", "surprised": "positive",
            "neutral": "neutral", "calm": "neutral",
            "angry": "negative", "fearful": "negative", "sad": "negative", "disgust": "negative",
        },
    ),
    # The four that URDU has and every other corpus too; the rest are left out.
    "emotion4": LabelScheme(
        "emotion4",
        ("angry", "happy", "neutral", "sad"),
        {
            "angry": "angry", "happy": "happy", "neutral": "neutral", "sad": "sad",
            "calm": None, "fearful": None, "disgust": None, "surprised": None, "boredom": None,
        },
    ),
    "emotion8": LabelScheme("emotion8", _EIGHT, {emotion: emotion for emotion in _EIGHT}),
    "intensity21": _intensity21(),
}  # fmt: skip
"""The label schemes by name."""


def _read_mapping(path: Path) -> list[tuple[str, str | None]]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        return list(json.loads(text).items())
    rows = csv.DictReader(io.StringIO(text))
    if not {"emotion", "label"} <= set(rows.fieldnames or ()):
        raise ValueError(f"the header is {','.join(rows.fieldnames or ())}")
    return [(row["emotion"] or "", row["label"]) for row in rows]


def _mapping(pairs: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
    mapping: dict[str, str | None] = {}
    for emotion, label in pairs:
        if not isinstance(label, str | None):
            raise ValueError(f"the label of {emotion!r} is {label!r}, not text")
        word, slash, intensity = emotion.partition("/")
        key = canonical_emotion(word) + slash + intensity.strip().lower()
        label = (label or "").strip() or None
        if not key:
            raise ValueError(f"the label {label!r} has no emotion")
        if mapping.setdefault(key, label) != label:
            raise ValueError(f"{emotion!r} has two labels, {mapping[key]!r} and {label!r}")
    return mapping
