"""Who is trained on and who is tested: pure index splits, and the audit of what they leak.

A split is computed from the table of usable clips (columns `label`, `speaker`, `corpus`,
`gender`, `sha256`, `recording`, `part`, `path`). All but `random` and published folds keep every
speaker on one side, and with the speaker the halves that a corpus cut from one recording.
"""

import csv
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from ser_embed.errors import SplitError
from ser_embed.splits.names import SPLITS

__all__ = ["Split", "audit", "make_splits", "rotations"]

log = logging.getLogger(__name__)

DRAWS = 500  # assignments of speakers that `speaker` chooses the best balanced of
HELD_OUT = 0.15  # proportion of a corpus's speakers in validation, and as many in test
K = 5  # folds of `kfold`


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


# --- the rules -------------------------------------------------------------------------------


def _random(clips: pd.DataFrame, seed: int) -> list[Split]:
    """80/10/10, stratified by class: the two-stage paper's. Speakers are on both sides."""
    tenth = len(clips) // 10
    if tenth < clips["label"].nunique():
        raise SplitError(
            f"{len(clips)} clips are too few for a random 80/10/10 split of "
            f"{clips['label'].nunique()} classes"
        )
    rest, test = _stratified(clips, np.arange(len(clips)), tenth, seed)
    train, val = _stratified(clips, rest, tenth, seed)
    return [Split("random", train, val, test)]


def _stratified(
    clips: pd.DataFrame, rows: np.ndarray, n: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    kept, taken = train_test_split(
        rows, test_size=n, stratify=clips["label"].to_numpy()[rows], random_state=seed
    )
    return np.sort(kept), np.sort(taken)


def _speaker(clips: pd.DataFrame, seed: int) -> list[Split]:
    """Hold out speakers of every corpus: 70/15/15 of them, balanced in class and gender.

    Of a corpus with two speakers one is trained on and one tested; of a corpus with one, it is
    trained on. Of many random assignments the one whose parts differ least in their classes and
    genders is taken, since a corpus may have speakers with one emotion only (URDU).
    """
    _need_speakers(clips, 2)
    rng = np.random.default_rng(seed)
    part_of: dict[str, int] = {}
    for _, corpus in clips.groupby("corpus", sort=True):
        part_of |= _assign(corpus, rng)
    part = clips["speaker"].map(part_of).to_numpy()
    train, val, test = (np.flatnonzero(part == number) for number in range(3))
    if not len(test):
        raise SplitError(
            "no corpus has two speakers or more, so none can be held out: use --split loco, which "
            "leaves out a corpus at a time, or --split random"
        )
    if not len(val):
        train, val = _validation(clips, train, seed)
    return [Split("speaker", train, val, test)]


def _assign(corpus: pd.DataFrame, rng: np.random.Generator) -> dict[str, int]:
    """Give each speaker of one corpus its part: 0 train, 1 val, 2 test."""
    labels = pd.crosstab(corpus["speaker"], corpus["label"])
    genders = pd.crosstab(corpus["speaker"], corpus["gender"])
    n = len(labels)
    n_test = min(max(1, round(HELD_OUT * n)), n - 1)
    n_val = min(n_test, n - n_test - 1)
    sides = np.repeat([2, 1, 0], [n_test, n_val, n - n_test - n_val])
    draws = [rng.permutation(sides) for _ in range(DRAWS)]
    best = min(
        draws,
        key=lambda parts: sum(_imbalance(t.to_numpy(), parts) for t in (labels, genders)),
    )
    return dict(zip(labels.index, best.tolist(), strict=True))


def _imbalance(counts: np.ndarray, parts: np.ndarray) -> float:
    """Return how far the held-out parts are from the whole in proportions and in size; a class
    that a part lacks costs 10.
    """
    whole = counts.sum(0) / counts.sum()
    cost = 0.0
    for number in (1, 2):
        part = counts[parts == number].sum(0)
        if part.sum():
            cost += float(np.abs(part / part.sum() - whole).sum()) + 10 * int((part == 0).sum())
            cost += abs(float(part.sum() / counts.sum()) - HELD_OUT)
    return cost + 10 * int((counts[parts == 0].sum(0) == 0).sum())


def _kfold(clips: pd.DataFrame, seed: int) -> list[Split]:
    """Five folds grouped by speaker, stratified by class."""
    n = len(_need_speakers(clips, 2))
    if n < K:
        log.info("only %d speakers: %d folds instead of %d", n, n, K)
    return [
        Split(f"fold {i}", *_validation(clips, rest, seed), test)
        for i, (rest, test) in enumerate(_by_speaker(clips, K, seed), start=1)
    ]


def _by_speaker(part: pd.DataFrame, n: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut clips into up to n folds by speaker, alike in their classes: (rest, fold) positions."""
    n = min(n, part["speaker"].nunique(), int(part["label"].value_counts().max()))
    if n < 2:
        return []
    # scikit-learn's own shuffling has changed between versions: a random order of the speakers,
    # which breaks its ties, gives the same folds in all.
    names = sorted(part["speaker"].unique())
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    groups = part["speaker"].map(dict(zip(names, order, strict=True)))
    folds = StratifiedGroupKFold(n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class with fewer clips than folds: it may be so
        found = list(folds.split(part, part["label"], groups))
    return [(rest, fold) for rest, fold in found if len(rest) and len(fold)]


def _loso(clips: pd.DataFrame, seed: int) -> list[Split]:
    """Leave one speaker out at a time."""
    return _leave_out(clips, "speaker", _need_speakers(clips, 2), seed)


def _loco(clips: pd.DataFrame, seed: int) -> list[Split]:
    """Leave one corpus out at a time."""
    corpora = sorted(clips["corpus"].unique())
    if len(corpora) < 2:
        raise SplitError(f"loco leaves a corpus out, but there is only {corpora[0]}")
    return _leave_out(clips, "corpus", corpora, seed)


def _leave_out(clips: pd.DataFrame, column: str, values: list[str], seed: int) -> list[Split]:
    splits = []
    for value in values:
        out = (clips[column] == value).to_numpy()
        rest, test = np.flatnonzero(~out), np.flatnonzero(out)
        splits.append(Split(value, *_validation(clips, rest, seed), test))
    return splits


def _given(clips: pd.DataFrame, seed: int) -> list[Split]:
    """The `split` column of the user's CSV; without `val` rows some training speakers are it."""
    part = clips["part"].to_numpy()
    train, val, test = (np.flatnonzero(part == name) for name in ("train", "val", "test"))
    if not len(train) or not len(test):
        raise SplitError(
            "--split given needs clips marked train and test in the CSV's split column; there are "
            f"{len(train)} and {len(test)}"
        )
    if not len(val):
        train, val = _validation(clips, train, seed)
    return [Split("given", train, val, test)]


def _folds(file: str, clips: pd.DataFrame, seed: int) -> list[Split]:
    """A published list: CSV with a `file` column and one column a fold, of train and test."""
    path = Path(file)
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SplitError(f"{path}: can't be read ({error})") from error
    names = [name for name in (rows[0] if rows else {}) if name and name.startswith("fold")]
    if not names or "file" not in rows[0]:
        raise SplitError(f"{path}: needs the header file,...,fold_1[,fold_2...] and rows under it")
    listed = {Path(row["file"] or "").name.lower(): row for row in rows}
    found = [
        listed.get(Path(p).stem.lower()) or listed.get(Path(p).name.lower()) for p in clips["path"]
    ]
    missing = found.count(None)
    if missing == len(clips):
        raise SplitError(
            f"{path}: names none of the {len(clips)} clips, such as {clips['path'].iat[0]}"
        )
    if missing:
        log.info("%d clips are not in %s and are left out", missing, path)
    splits = []
    for name in names:
        part = np.array([(row[name] or "").strip().lower() if row else "" for row in found])
        train, val, test = (np.flatnonzero(part == kind) for kind in ("train", "val", "test"))
        if not len(train) or not len(test):
            raise SplitError(f"{path}: {name} needs clips marked train and clips marked test")
        if not len(val):
            train, val = _validation(clips, train, seed)
        splits.append(Split(name, train, val, test))
    return splits


_RULES: dict[str, Callable[[pd.DataFrame, int], list[Split]]] = {
    "random": _random, "speaker": _speaker, "kfold": _kfold, "loso": _loso, "loco": _loco,
    "given": _given,
}  # fmt: skip


def _need_speakers(clips: pd.DataFrame, least: int) -> list[str]:
    unnamed = int((clips["speaker"] == "").sum())
    if unnamed:
        raise SplitError(
            f"{unnamed} clips have no speaker, so speakers can't be kept apart: add a speaker "
            "column to the CSV, or use --split random and read its score with care"
        )
    speakers = sorted(clips["speaker"].unique())
    if len(speakers) < least:
        raise SplitError(
            f"all clips are of one speaker ({speakers[0]}), so none can be held out: add speakers, "
            "or use --split random and read its score with care"
        )
    return speakers


def _validation(clips: pd.DataFrame, rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split training rows into (train, val): about an eighth, of other speakers where possible."""
    part = clips.iloc[rows]
    n_speakers = part["speaker"].nunique()
    if n_speakers >= 3 and (part["speaker"] != "").all():
        # Folds of few speakers can miss a class; take the one that misses least, in training
        # above all.
        labels = part["label"]
        candidates = _by_speaker(part, 8, seed)
        if candidates:
            train, val = max(
                candidates, key=lambda fold: tuple(labels.iloc[rows].nunique() for rows in fold)
            )
            return rows[train], rows[val]
    n = max(len(rows) // 8, part["label"].nunique())
    counts = part["label"].value_counts()
    if counts.min() < 2 or n >= len(rows) - part["label"].nunique():
        raise SplitError(
            f"{len(rows)} training clips, {counts.min()} in the smallest class, leave none to "
            "validate on: add clips, or leave that class out with a mapping file"
        )
    return _stratified(clips, rows, n, seed)


# --- splits of a table -----------------------------------------------------------------------


def make_splits(rule: str, clips: pd.DataFrame, classes: tuple[str, ...], seed: int) -> list[Split]:
    """Split a table of clips.

    Args:
        rule: Key of `SPLITS`, or `folds:FILE`.
        clips: The usable clips; see the module's docstring for the columns.
        classes: Class names, for messages.
        seed: Seed of every random choice.

    Returns:
        One split, or one a fold.

    Raises:
        SplitError: No such rule, or the clips don't allow it; the message says why.
    """
    counts = clips["label"].value_counts()
    for number, name in enumerate(classes):
        if counts.get(number, 0) < 3:
            raise SplitError(
                f"class {name!r} has {counts.get(number, 0)} clips; it takes 3 to train, validate "
                "and test. Add clips, or leave the class out with --labels FILE"
            )
    if rule.startswith("folds:"):
        splits = _folds(rule.removeprefix("folds:"), clips, seed)
    elif rule in _RULES:
        splits = _RULES[rule](clips, seed)
    else:
        raise SplitError(f"no split {rule!r}; there are {', '.join(SPLITS)} and folds:FILE")
    for split in splits:
        absent = set(range(len(classes))) - set(clips["label"].to_numpy()[split.train])
        if absent:
            names = ", ".join(classes[i] for i in sorted(absent))
            raise SplitError(
                f"{split.name}: no training clip of {names}; try another --seed or split"
            )
    return splits


def rotations(split: Split, clips: pd.DataFrame, n: int, seed: int) -> list[Split]:
    """Return n splits with the same test part and different validation parts.

    The first is the split itself. The others hold out other speakers of its training and
    validation parts (other clips, where speakers don't allow it), so that together the members
    of an ensemble are trained on all of them.
    """
    rows = np.sort(np.concatenate([split.train, split.val]))
    part = clips.iloc[rows]
    folds: list[tuple[np.ndarray, np.ndarray]] = []
    if (part["speaker"] != "").all():
        whole = part["label"].nunique()
        folds = [
            (rows[train], rows[val]) for train, val in _by_speaker(part, max(8, n), seed)
            if part["label"].iloc[train].nunique() == whole
            and not np.array_equal(rows[val], split.val)
        ]  # fmt: skip
    rotated = [split]
    for number in range(1, n):
        if folds:
            train, val = folds[(number - 1) % len(folds)]
        else:
            train, val = _stratified(clips, rows, len(split.val), seed + number)
        rotated.append(Split(split.name, train, val, split.test))
    return rotated


def audit(split: Split, clips: pd.DataFrame) -> dict[str, int]:
    """Count what the test part shares with what training saw (training and validation).

    Returns:
        `train`, `val`, `test` (clips), `test_speakers`, `shared_speakers`, and the test clips
        whose bytes (`duplicates`) or other segments of whose recording (`halves`) training saw.
    """
    seen = clips.iloc[np.concatenate([split.train, split.val])]
    test = clips.iloc[split.test]
    speakers = {s for s in test["speaker"] if s}
    recordings = set(seen["recording"]) - {""}
    return {
        "train": len(split.train),
        "val": len(split.val),
        "test": len(split.test),
        "test_speakers": len(speakers),
        "shared_speakers": len(speakers & set(seen["speaker"])),
        "duplicates": int(test["sha256"].isin(set(seen["sha256"])).sum()),
        "halves": int(test["recording"].isin(recordings).sum()),
    }
