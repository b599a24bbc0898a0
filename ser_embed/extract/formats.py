"""One utterance in several formats: the lossless file is taken, the others stand in for it.

CREMA-D's repository, for instance, has each clip as AudioWAV/X.wav and AudioMP3/X.mp3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ser_embed.audio import SAMPLE_RATE, AudioFile
from ser_embed.corpora import CORPORA, Listing, Utterance
from ser_embed.errors import AudioError

__all__ = ["Formats"]

_LOSSLESS = (".wav", ".flac", ".aiff", ".aif", ".w64", ".caf", ".au")
_FRAME = SAMPLE_RATE // 100  # 10 ms
_LAG = 12  # frames that an encoder may put before the sound
_ALIKE = 0.95  # correlation of envelopes; MP3 of 32 kbit/s keeps 0.99 of its own
_LENGTHS = 0.25  # seconds that the copies' lengths may differ by


@dataclass
class Formats:
    """A corpus's utterances, each from one file.

    Attributes:
        first: The clips to be read.
        others: By the path of one of them, the same utterance in other formats.
    """

    first: Sequence[Utterance]
    others: dict[str, list[Utterance]] = field(default_factory=dict)

    @classmethod
    def of(cls, listing: Listing) -> "Formats":
        """Find files that differ in their ending and hold the same utterance.

        In a known corpus the file's name says which utterance it is. Of a table's clips, whose
        names may say nothing, all but the path has to be the same, and the sound as well.
        """
        utterances = listing.utterances
        if len({utterance.path.suffix.lower() for utterance in utterances}) < 2:
            return cls(utterances)
        named = listing.corpus in CORPORA or listing.synthetic
        groups: dict[tuple[object, ...], list[Utterance]] = {}
        for u in utterances:
            key = (u.path.stem.lower(), u.speaker, u.emotion, u.intensity, u.start, u.end)
            groups.setdefault(key, []).append(u)
        out = cls([])
        left: set[int] = set()
        for group in groups.values():
            ending = min((u.path.suffix.lower() for u in group), key=_rank)
            kept = [u for u in group if u.path.suffix.lower() == ending]
            for u in group:
                same = None if u in kept else next(
                    (one for one in kept if named or _sound_alike(one, u)), None
                )  # fmt: skip
                if same is not None:
                    out.others.setdefault(str(same.path), []).append(u)
                    left.add(id(u))
        out.first = [u for u in utterances if id(u) not in left] if left else utterances
        return out


def _rank(ending: str) -> tuple[int, str]:
    return (_LOSSLESS.index(ending) if ending in _LOSSLESS else len(_LOSSLESS)), ending


def _sound_alike(one: Utterance, other: Utterance) -> bool:
    """Return whether two files hold the same sound, by the envelopes of their first minute."""
    try:
        lengths = [AudioFile(u.path).duration() for u in (one, other)]
        if abs(lengths[0] - lengths[1]) > _LENGTHS:
            return False
        first, second = (_envelope(AudioFile(u.path).read(60.0).samples) for u in (one, other))
    except AudioError:
        return False
    n = min(len(first), len(second)) - _LAG
    if n < _LAG:
        return False
    return any(
        _correlation(first[max(0, -lag) :][:n], second[max(0, lag) :][:n]) > _ALIKE
        for lag in range(-_LAG, _LAG + 1)
    )


def _envelope(samples: np.ndarray) -> np.ndarray:
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    return np.sqrt(np.square(frames, dtype=np.float64).mean(axis=1))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    n = min(len(one), len(other))
    one, other = one[:n] - one[:n].mean(), other[:n] - other[:n].mean()
    scale = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / scale) if scale > 0 else 0.0
