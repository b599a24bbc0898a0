"""Emotions, and the schemes that map them to classes.

A corpus gives each clip an emotion (and sometimes an intensity), in its own word; a `LabelScheme`
maps that to the class a head is trained on. A scheme of this package leaves out what it has no
class for, with a remark that counts it. A mapping file names every emotion that may occur: one
that is left out on purpose has an empty label, one that isn't named is an error.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ser_embed.csvfile import CsvFile
from ser_embed.errors import LabelError

__all__ = ["EMOTIONS", "SCHEMES", "LabelScheme", "canonical_emotion"]

log = logging.getLogger(__name__)

OWN = "own"  # the scheme whose classes are the clips' own words

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
    word = _plain(word)
    return _SYNONYMS.get(word, word)


def _plain(word: str) -> str:
    """Return a word without the differences that nobody means: case, spaces, dashes."""
    return "_".join(word.lower().replace("-", " ").replace("_", " ").split())


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
        the clips out. Classes are ordered as they first appear. `own` has no classes before
        `fit` gives it those of the clips.

        Raises:
            LabelError: No such scheme or file, or a file that names no class.
        """
        if name_or_file == OWN:
            return cls(OWN, (), {})
        if name_or_file in SCHEMES:
            return SCHEMES[name_or_file]
        path = Path(name_or_file)
        if not path.is_file():
            raise LabelError(
                f"{name_or_file!r} is neither a label scheme ({', '.join(SCHEMES)}, {OWN}) nor a "
                "mapping file"
            )
        try:
            mapping = _mapping(_read_mapping(path))
        except (ValueError, KeyError, AttributeError, RecursionError, OSError) as error:
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

    def fit(self, emotions: Iterable[str]) -> "LabelScheme":
        """Return the scheme itself, or for `own` the one whose classes are these words.

        A word in several spellings (`Happy`, `happy`) is one class, called as it is most often.

        Raises:
            LabelError: Clips of fewer than two words.
        """
        if self.name != OWN or self.classes:
            return self
        spellings: dict[str, Counter[str]] = {}
        for word, count in Counter(emotions).items():
            spellings.setdefault(_plain(word), Counter())[word] += count
        mapping = {plain: max(sorted(n), key=n.__getitem__) for plain, n in spellings.items()}
        if len(mapping) < 2:
            words = ", ".join(mapping.values()) or "none"
            raise LabelError(f"the clips' own words are {words}: a classifier needs two or more")
        return LabelScheme(OWN, tuple(sorted(mapping.values())), mapping)

    @property
    def complete(self) -> bool:
        """Whether an emotion that isn't named is an error, as in a mapping file."""
        known = SCHEMES.get(self.name)
        return self.name != OWN and (known is None or dict(known.mapping) != dict(self.mapping))

    def label(self, emotion: str, intensity: str = "") -> str | None:
        """Return the class of an emotion, or None if the scheme leaves it out.

        The word itself goes before another word for the same emotion: a mapping may give `N`
        and `neutral` two classes.

        Raises:
            LabelError: A mapping file doesn't name this emotion.
        """
        found, label = self._find(emotion, intensity)
        if not found and self.complete:
            raise LabelError(self._unknown({_written(emotion, intensity): 1}))
        return label

    def _find(self, emotion: str, intensity: str) -> tuple[bool, str | None]:
        """Return whether an emotion is named, and its class."""
        grade = intensity.strip().lower()
        words = (_plain(emotion), canonical_emotion(emotion))
        for key in (*(f"{word}/{grade}" for word in words), *words):
            if key in self.mapping:
                return True, self.mapping[key]
        return False, None

    def encode(self, emotions: Iterable[str], intensities: Iterable[str]) -> list[int]:
        """Return class indices, -1 where the scheme leaves the emotion out.

        So it does where an emotion's class isn't among `classes`: a head's card has the whole
        mapping, and of the classes those that the head knows.

        Raises:
            LabelError: Some emotions aren't named by a mapping file; all of them are listed.
        """
        index: dict[str | None, int] = {name: i for i, name in enumerate(self.classes)}
        index[None] = -1
        pairs = list(zip(emotions, intensities, strict=True))
        found = {pair: self._find(*pair) for pair in dict.fromkeys(pairs)}
        unknown = Counter(_written(*pair) for pair in pairs if not found[pair][0])
        if unknown and self.complete:
            raise LabelError(self._unknown(unknown))
        if unknown:
            log.warning("%s has no class for %s: left out", self.name, _listed(unknown))
        return [index.get(found[pair][1], -1) for pair in pairs]

    def leaves_out_all(self, words: Iterable[str]) -> str:
        """Return what is to be said where no clip, of these emotions, has a class."""
        own = "" if self.name == OWN else f", or --labels {OWN} for the clips' own words"
        return (
            f"the label scheme {self.name!r} leaves out every clip: no class for "
            f"{', '.join(map(repr, sorted(words)))}. Give a mapping file that names them, "
            f"--labels FILE.csv with the header emotion,label{own}"
        )

    def _unknown(self, unknown: Mapping[str, int]) -> str:
        return (
            f"the label scheme {self.name!r} doesn't name {_listed(unknown)}; it names "
            f"{', '.join(sorted(self.mapping))}. Give a mapping file that does, "
            "--labels FILE.csv with the header emotion,label (an empty label leaves clips out), "
            f"or --labels {OWN} for the clips' own words"
        )


def _written(emotion: str, intensity: str) -> str:
    return f"{emotion}/{intensity}" if intensity else emotion


def _listed(words: Mapping[str, int]) -> str:
    return ", ".join(f"{word!r} ({count} clips)" for word, count in sorted(words.items()))


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
    if path.suffix.lower() == ".json":
        return list(json.loads(path.read_text(encoding="utf-8-sig")).items())
    rows = CsvFile(path, ("emotion", "label|class")).rows()
    return [(row["emotion"], row["label"]) for _, row in rows]


def _mapping(pairs: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
    """Return the classes by the vocabulary's words; by the file's own where it tells apart two
    that are one there, such as `N` and `neutral`.
    """
    own: dict[str, str | None] = {}
    for emotion, label in pairs:
        if not isinstance(label, str | None):
            raise ValueError(f"the label of {emotion!r} is {label!r}, not text")
        word, slash, intensity = emotion.partition("/")
        key = _plain(word) + slash + intensity.strip().lower()
        label = (label or "").strip() or None
        if not key:
            raise ValueError(f"the label {label!r} has no emotion")
        if own.setdefault(key, label) != label:
            raise ValueError(f"{emotion!r} has two labels, {own[key]!r} and {label!r}")
    labels: dict[str, set[str | None]] = {}
    for key, label in own.items():
        labels.setdefault(_canonical_key(key), set()).add(label)
    return {
        _canonical_key(key) if len(labels[_canonical_key(key)]) == 1 else key: label
        for key, label in own.items()
    }


def _canonical_key(key: str) -> str:
    word, slash, intensity = key.partition("/")
    return canonical_emotion(word) + slash + intensity
