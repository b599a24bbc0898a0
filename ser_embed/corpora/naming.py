"""How corpora name their files, as data: one pattern and one table of codes each.

The file name decides, never the folder, in any nesting and case: copies of TESS differ in their
folders' case and wording. The one exception is SAVEE's per-speaker layout, `DC/a01.wav`, whose
file names don't carry the speaker.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ser_embed.csvfile import says_nothing
from ser_embed.errors import CorpusError

__all__ = ["CORPORA", "Corpus", "Utterance", "recognise"]


@dataclass(frozen=True, slots=True)  # a corpus may have millions
class Utterance:
    """One clip and what its corpus says of it.

    Attributes:
        path: The audio file.
        corpus: Name of the corpus.
        speaker: Name that is unique over all corpora, `corpus:speaker`; "" if unknown.
        gender: `female`, `male` or "".
        emotion: Word of `labels.EMOTIONS`, or a CSV's own.
        intensity: As the corpus grades it (`normal`, `strong`, `low`, ...) or "".
        text_id: What was said, where the corpus numbers its sentences, or "".
        recording: Clips cut from one recording share it; "" if every clip is its own.
        part: A CSV's own split: `train`, `val`, `test` or "".
        start: Where the clip begins in the file, in seconds; None: at the file's beginning.
        end: Where it ends; None: at the file's end.
    """

    path: Path
    corpus: str
    speaker: str
    gender: str
    emotion: str
    intensity: str = ""
    text_id: str = ""
    recording: str = ""
    part: str = ""
    start: float | None = None
    end: float | None = None

    @staticmethod
    def person(speaker: str) -> str:
        """Return who a speaker's name, `corpus:name` or the name alone, means; "" for nobody.

        The same person has one name, in whichever corpus. Tables that were written before are
        read by it too.

        >>> Utterance.person("ravdess-song:07"), Utterance.person("calls:Unknown")
        ('ravdess:07', '')
        """
        corpus, colon, name = speaker.partition(":")
        if says_nothing(name if colon else corpus):
            return ""
        return _SAME_PEOPLE.get(corpus, corpus) + colon + name


_SAME_PEOPLE = {"ravdess-song": "ravdess"}  # its actors speak in the one and sing in the other

Fields = Mapping[str, str]


@dataclass(frozen=True)
class Corpus:
    """The naming rule of a corpus.

    Attributes:
        name: How `--corpus` names it.
        rule: The rule as its authors write it, for messages.
        pattern: Matched against the file's stem, or against `folder/stem` if that fails.
        emotions: Code to emotion.
        intensities: Code to intensity.
        gender: From the matched groups to `female`, `male` or "".
        aliases: Other spellings of a speaker's name to the usual one.
        recording: From the matched groups to the recording's name, where clips share one.
        licence: Licence of the audio.
    """

    name: str
    rule: str
    pattern: re.Pattern[str]
    emotions: Mapping[str, str]
    gender: Callable[[Fields], str]
    licence: str
    intensities: Mapping[str, str]
    recording: Callable[[Fields], str] = lambda fields: ""
    aliases: Mapping[str, str] = field(default_factory=dict)

    def _match(self, path: Path) -> re.Match[str] | None:
        match = self.pattern.fullmatch(path.stem)
        return match or self.pattern.fullmatch(f"{path.parent.name}/{path.stem}")

    def key(self, path: Path) -> str:
        """Return the name of the utterance, in upper case and without the file's modality."""
        match = self._match(path)
        if match is None:
            return path.stem.upper()
        name = match.string.upper()
        return name[match.end("modality") :] if "modality" in match.groupdict() else name

    def preference(self, stem: str) -> tuple[int, str]:
        """Return what files of one utterance are sorted by: those of sound alone go first."""
        known = "modality" in self.pattern.groupindex and stem[:2] in _MODALITIES
        return _MODALITIES.index(stem[:2]) if known else 0, stem

    def parse(self, path: Path) -> Utterance | None:
        """Return the utterance that a path names, or None if the name isn't of this corpus.

        Raises:
            CorpusError: The name follows the rule but with a code the corpus doesn't have.
        """
        match = self._match(path)
        if match is None:
            return None
        fields = {name: (value or "").upper() for name, value in match.groupdict().items()}
        code, grade = fields["emotion"], fields.get("intensity", "")
        if code not in self.emotions:
            raise CorpusError(
                f"{path}: {self.name} has no emotion code {code!r}; it has "
                + ", ".join(f"{k} {v}" for k, v in self.emotions.items())
            )
        if grade and grade not in self.intensities:
            raise CorpusError(
                f"{path}: {self.name} has no intensity code {grade!r}; it has "
                + ", ".join(f"{k} {v or 'unspecified'}" for k, v in self.intensities.items())
            )
        speaker, recording = fields["speaker"], self.recording(fields)
        return Utterance(
            path=path,
            corpus=self.name,
            speaker=Utterance.person(f"{self.name}:{self.aliases.get(speaker, speaker)}"),
            gender=self.gender(fields),
            emotion=self.emotions[code],
            intensity=self.intensities.get(grade, ""),
            text_id=fields.get("text", "").lower(),
            recording=recording and f"{self.name}:{recording}",
        )


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.VERBOSE | re.ASCII)


def _by_speaker(female: Iterable[str]) -> Callable[[Fields], str]:
    women = frozenset(female)
    return lambda fields: "female" if fields["speaker"] in women else "male"


def _by_parity(fields: Fields) -> str:
    return "male" if int(fields["speaker"]) % 2 else "female"


def _urdu_recording(fields: Fields) -> str:
    """URDU's clips are the 2 s and 3 s halves of one recording, numbered in pairs per emotion."""
    pair = (int(fields["number"]) + 1) // 2
    return f"{fields['speaker']}-{fields['emotion']}{pair}"


_MODALITIES = ("03", "01", "02")  # RAVDESS's sound alone, sound and picture, picture alone
_RAVDESS_EMOTIONS = {
    "01": "neutral", "02": "calm", "03": "happy", "04": "sad",
    "05": "angry", "06": "fearful", "07": "disgust", "08": "surprised",
}  # fmt: skip
_RAVDESS_RULE = (
    r"(?P<modality>01|02|03)-{channel}-(?P<emotion>\d\d)-(?P<intensity>\d\d)-(?P<text>\d\d)-\d\d-"
    r"(?P<speaker>\d\d)"
)
# CREMA-D's file names don't say who is a woman; these 43 of its 91 actors are
# (its own VideoDemographics table).
_CREMA_D_WOMEN = (
    1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025,
    1028, 1029, 1030, 1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060,
    1061, 1063, 1072, 1073, 1074, 1075, 1076, 1078, 1079, 1082, 1084, 1089, 1091,
)  # fmt: skip


def _ravdess(name: str, channel: str) -> Corpus:
    return Corpus(
        name=name,
        rule=f"MM-{channel}-EE-II-SS-RR-AA",
        pattern=_rule(_RAVDESS_RULE.replace("{channel}", channel)),
        emotions=_RAVDESS_EMOTIONS,
        intensities={"01": "normal", "02": "strong"},
        gender=_by_parity,
        licence="CC BY-NC-SA 4.0",
    )


_ALL = (
    _ravdess("ravdess", "01"),
    _ravdess("ravdess-song", "02"),
    Corpus(
        name="tess",
        rule="{OAF|YAF}_word_emotion",
        pattern=_rule(r"(?P<speaker>OAF?|YAF)_(?P<text>[a-z]+)_(?P<emotion>[a-z]+)"),
        emotions={
            "ANGRY": "angry", "DISGUST": "disgust", "FEAR": "fearful", "HAPPY": "happy",
            "NEUTRAL": "neutral", "PS": "surprised", "SAD": "sad",
        },
        intensities={},
        gender=lambda fields: "female",
        aliases={"OA": "OAF"},  # one official file is OA_bite_neutral
        licence="CC BY-NC-ND 4.0",
    ),
    Corpus(
        name="urdu",
        rule="S{M|F}speaker_F{n}_{A|H|N|S}{n}",
        pattern=_rule(r"(?P<speaker>S[MF]\d+)_F\d+_(?P<emotion>[A-Z])(?P<number>\d{1,4})"),
        emotions={"A": "angry", "H": "happy", "N": "neutral", "S": "sad"},
        intensities={},
        gender=lambda fields: "female" if fields["speaker"][1] == "F" else "male",
        recording=_urdu_recording,
        licence="research use only",
    ),
    Corpus(
        name="crema-d",
        rule="{1001-1091}_{sentence}_{ANG|DIS|FEA|HAP|NEU|SAD}_{LO|MD|HI|XX}",
        # Old copies have 1040_ITH_SAD_X.
        pattern=_rule(
            r"(?P<speaker>10\d\d)_(?P<text>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<intensity>[A-Z]{1,2})"
        ),
        emotions={
            "ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy",
            "NEU": "neutral", "SAD": "sad",
        },
        intensities={"LO": "low", "MD": "medium", "HI": "high", "XX": "", "X": ""},
        gender=_by_speaker(map(str, _CREMA_D_WOMEN)),
        licence="ODbL",
    ),
    Corpus(
        name="emo-db",
        rule="SSTTTEv: speaker, text, emotion W L E A F T N, version",
        pattern=_rule(r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<emotion>[A-Z])[a-z]?"),
        emotions={
            "W": "angry", "L": "boredom", "E": "disgust", "A": "fearful",
            "F": "happy", "T": "sad", "N": "neutral",
        },
        intensities={},
        gender=_by_speaker(("08", "09", "13", "14", "16")),
        licence="free for research",
    ),
    Corpus(
        name="savee",
        rule="{DC|JE|JK|KL}_{a|d|f|h|n|sa|su}NN, or the speaker as folder",
        pattern=_rule(r"(?P<speaker>DC|JE|JK|KL)[_/](?P<emotion>sa|su|[a-z])(?P<text>\d\d)"),
        emotions={
            "A": "angry", "D": "disgust", "F": "fearful", "H": "happy",
            "N": "neutral", "SA": "sad", "SU": "surprised",
        },
        intensities={},
        gender=lambda fields: "male",
        licence="free for research",
    ),
    Corpus(
        name="nemo",
        rule="{speaker}_{emotion}_{sentence}",
        pattern=_rule(r"(?P<speaker>[A-Z]{2}\d)_(?P<emotion>[a-z]+)_(?P<text>\d+)"),
        emotions={
            "ANGER": "angry", "FEAR": "fearful", "HAPPINESS": "happy", "NEUTRAL": "neutral",
            "SADNESS": "sad", "SURPRISED": "surprised",
        },
        intensities={},
        gender=lambda fields: "",  # its names don't say
        licence="CC BY-NC-SA 4.0",
    ),
)  # fmt: skip

CORPORA: dict[str, Corpus] = {corpus.name: corpus for corpus in _ALL}
"""The known corpora by name."""


def recognise(path: Path) -> Utterance | None:
    """Return the utterance that a path names in any known corpus, or None."""
    for corpus in CORPORA.values():
        try:
            utterance = corpus.parse(path)
        except CorpusError:
            continue
        if utterance:
            return utterance
    return None
