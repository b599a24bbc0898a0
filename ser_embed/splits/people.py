"""Which clips may not be on two sides, and the audit of what a split has on both."""

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

__all__ = ["Split", "audit", "contents_of", "groups_of", "overlap"]

PADDING = 0.15  # seconds that a codec may add to a clip


@dataclass(frozen=True)
class Split:
    """Row numbers of the clips in each part, int arrays without overlap.

    Attributes:
        name: The fold's name.
        train: Clips that weights are fitted on.
        val: Clips that training is watched and probabilities are calibrated on.
        test: Clips that are scored once.
    """

    name: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def groups_of(clips: pd.DataFrame) -> pd.Series:
    """Group clips by who speaks and what they were cut from.

    Clips of one speaker are of one group, and so are those of one recording, whoever speaks in
    it: the two in a dialogue are one group. A clip with neither is a group of its own.

    Returns:
        The group's name for each clip: the first of its speakers, or one that sorts behind all.
    """
    speakers = clips["speaker"].to_numpy(dtype=object)
    recordings = clips["recording"].to_numpy(dtype=object)
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = parent[above]
            node = parent[node]
        return node

    nodes = []
    for row, (speaker, recording) in enumerate(zip(speakers, recordings, strict=True)):
        node = ("a", speaker) if speaker else ("b", recording) if recording else ("c", f"{row:09}")
        nodes.append(node)
        if speaker and recording:
            low, high = sorted((root(node), root(("b", recording))))
            parent[high] = low  # so that a speaker's name stands for the group, the first one
    names = [name if kind == "a" else f"\uffff{kind}{name}" for kind, name in map(root, nodes)]
    return pd.Series(names, index=clips.index, dtype=object)


def contents_of(clips: pd.DataFrame) -> pd.Series:
    """Return what identifies each clip's sound: its file's SHA-256, and its range if it has one."""
    if not {"start", "end"} <= set(clips):
        return clips["sha256"]
    start = pd.to_numeric(clips["start"], errors="coerce").fillna(0.0)
    end = pd.to_numeric(clips["end"], errors="coerce").fillna(0.0)
    whole = (start == 0) & (end == 0)
    ranges = start.map("{:.6f}".format) + "-" + end.map("{:.6f}".format)
    return clips["sha256"].where(whole, clips["sha256"] + ":" + ranges)


def _copies(test: pd.DataFrame, seen: pd.DataFrame) -> np.ndarray:
    """Return which test clips (n,) training saw in another format or under another name.

    That is by the column `twin`, which clips of like features share, and by their names: one
    stem and emotion, another ending, a length that differs by no more than a codec's padding.
    """
    found = np.zeros(len(test), dtype=bool)
    if {"twin"} <= set(test) & set(seen):
        found |= test["twin"].isin(set(seen["twin"]) - {""}).to_numpy()
    if {"path", "emotion", "seconds", "corpus"} <= set(test) & set(seen):
        sides = [
            pd.DataFrame({
                "stem": part["path"].map(lambda path: PurePosixPath(path).stem.casefold()),
                "ending": part["path"].map(lambda path: PurePosixPath(path).suffix.casefold()),
                "emotion": part["emotion"], "seconds": pd.to_numeric(part["seconds"]),
                "speaker": part["speaker"], "corpus": part["corpus"], "row": np.arange(len(part)),
            }) for part in (test, seen)
        ]  # fmt: skip
        pairs = sides[0].merge(sides[1], on=["stem", "emotion"], suffixes=("", "_seen"))
        others = (pairs["speaker"] != pairs["speaker_seen"]) & (
            pairs["corpus"] == pairs["corpus_seen"]
        )
        alike = (pairs["seconds"] - pairs["seconds_seen"]).abs() <= PADDING
        pairs = pairs[alike & ~others & (pairs["ending"] != pairs["ending_seen"])]
        found[pairs["row"].to_numpy(dtype=int)] = True
    return found


def overlap(test: pd.DataFrame, seen: pd.DataFrame) -> dict[str, int]:
    """Count what test clips have in common with clips that training saw.

    Args:
        test: The test clips' rows.
        seen: Those that training saw; what these lack of columns isn't counted.

    Returns:
        `test_speakers`; `shared_speakers`, who were trained on too; and how many test clips are
        byte-identical to one that was trained on (`duplicates`), are the same recording in
        another format or under another name (`near_duplicates`), are from a recording with
        others that were trained on (`halves`), or have no named speaker (`unnamed`, and
        `unnamed_training` of those that were trained on).
    """
    people = set(test["speaker"]) - {""}
    same = contents_of(test).isin(set(contents_of(seen)))
    return {
        "test_speakers": len(people),
        "shared_speakers": len(people & set(seen["speaker"])),
        "duplicates": int(same.sum()),
        "near_duplicates": int((_copies(test, seen) & ~same).sum()),
        "halves": int(test["recording"].isin(set(seen["recording"]) - {""}).sum()),
        "unnamed": int((test["speaker"] == "").sum()),
        "unnamed_training": int((seen["speaker"] == "").sum()),
    }


def audit(split: Split, clips: pd.DataFrame) -> dict[str, int]:
    """Count what the test part shares with what training saw (training and validation).

    Returns:
        `train`, `val`, `test` (clips) and what `overlap` gives.
    """
    seen = clips.iloc[np.concatenate([split.train, split.val])]
    sizes = {"train": len(split.train), "val": len(split.val), "test": len(split.test)}
    return {**sizes, **overlap(clips.iloc[split.test], seen)}
