"""Who is trained on and who is tested: pure index splits, and the audit of what they leak.

A split is computed from the table of usable clips (columns `label`, `speaker`, `corpus`,
`gender`, `sha256`, `recording`, `part`, `path`). All but `random`, `given` and published folds
keep every person on one side, and all clips of one recording: who shares a recording with
somebody stays with them, and a person in two corpora is one.
"""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from ser_embed.errors import SplitError
from ser_embed.splits.folds import read_folds
from ser_embed.splits.names import SPLITS
from ser_embed.splits.people import Split, groups_of

__all__ = ["make_splits", "rotations"]

log = logging.getLogger(__name__)

DRAWS = 500  # assignments of speakers that `speaker` chooses the best balanced of
HELD_OUT = 0.15  # proportion of a corpus's speakers in validation, and as many in test
K = 5  # folds of `kfold`


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
    labels = clips["label"].to_numpy()[rows]
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    if counts.min() < 2 or n < len(counts) or n >= len(rows) - len(counts):
        raise SplitError(
            f"{len(rows)} training clips, {counts.min()} in the smallest class, leave none to "
            "validate on: add clips, or leave that class out with a mapping file"
        )
    kept, taken = train_test_split(rows, test_size=n, stratify=labels, random_state=seed)
    return np.sort(kept), np.sort(taken)


def _speaker(clips: pd.DataFrame, seed: int) -> list[Split]:
    """Hold out speakers of every corpus: 70/15/15 of them, balanced in class and gender.

    Of a corpus with two speakers one is trained on and one tested; of a corpus with one, it is
    trained on. Of many random assignments the one whose parts differ least in their classes and
    genders is taken, since a corpus may have speakers with one emotion only (URDU).
    """
    _need_speakers(clips, 2)
    rng = np.random.default_rng(seed)
    groups = groups_of(clips)
    part_of: dict[str, int] = {}
    for _, corpus in clips.assign(speaker=groups).groupby(_populations(clips, groups), sort=True):
        part_of |= _assign(corpus, rng)
    part = groups.map(part_of).to_numpy()
    train, val, test = (np.flatnonzero(part == number) for number in range(3))
    if not len(test):
        raise SplitError(
            "no corpus has two speakers or more, so none can be held out: use --split loco, which "
            "leaves out a corpus at a time, or --split random"
        )
    if not len(val):
        train, val = _validation(clips, train, seed)
    return [Split("speaker", train, val, test)]


def _populations(clips: pd.DataFrame, groups: pd.Series) -> pd.Series:
    """Name the corpora (N,) whose people are among each other, by the first of them."""
    among = groups_of(pd.DataFrame({"speaker": clips["corpus"], "recording": groups}))
    return among.set_axis(clips.index)


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
    that a part lacks costs 10, and one that training lacks more than that both others do.
    """
    whole = counts.sum(0) / counts.sum()
    cost = 0.0
    for number in (1, 2):
        part = counts[parts == number].sum(0)
        if part.sum():
            cost += float(np.abs(part / part.sum() - whole).sum()) + 10 * int((part == 0).sum())
            cost += abs(float(part.sum() / counts.sum()) - HELD_OUT)
    return cost + 30 * int((counts[parts == 0].sum(0) == 0).sum())


def _kfold(clips: pd.DataFrame, seed: int) -> list[Split]:
    """Five folds grouped by speaker, stratified by class."""
    n = _need_speakers(clips, 2)
    if n < K:
        log.info("only %d speakers: %d folds instead of %d", n, n, K)
    return [
        Split(f"fold {i}", *_validation(clips, rest, seed), test)
        for i, (rest, test) in enumerate(_by_speaker(clips, K, seed), start=1)
    ]


def _by_speaker(part: pd.DataFrame, n: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut clips into up to n folds by speaker, alike in their classes: (rest, fold) positions."""
    groups = groups_of(part)
    n = min(n, groups.nunique(), int(part["label"].value_counts().max()))
    if n < 2:
        return []
    # scikit-learn's own shuffling has changed between versions: a random order of the speakers,
    # which breaks its ties, gives the same folds in all.
    names = sorted(groups.unique())
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    groups = groups.map(dict(zip(names, order, strict=True)))
    folds = StratifiedGroupKFold(n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class with fewer clips than folds: it may be so
        found = list(folds.split(part, part["label"], groups))
    return [(rest, fold) for rest, fold in found if len(rest) and len(fold)]


def _loso(clips: pd.DataFrame, seed: int) -> list[Split]:
    """Leave one speaker out at a time, and with them those who share their recordings."""
    _need_speakers(clips, 2)
    splits = []
    groups = groups_of(clips).to_numpy()
    for group in sorted(set(groups)):
        test = np.flatnonzero(groups == group)
        name = "+".join(sorted(clips["speaker"].iloc[test].unique()))
        rest = np.flatnonzero(groups != group)
        splits.append(Split(name, *_validation(clips, rest, seed), test))
    return splits


def _loco(clips: pd.DataFrame, seed: int) -> list[Split]:
    """Leave one corpus out at a time, and of the others the clips of its people."""
    corpora = sorted(clips["corpus"].unique())
    if len(corpora) < 2:
        raise SplitError(f"loco leaves a corpus out, but there is only {corpora[0]}")
    groups, splits = groups_of(clips), []
    for corpus in corpora:
        out = clips["corpus"] == corpus
        known = groups.isin(set(groups[out])) & ~out
        if known.any():
            log.info("%s left out: so are %d clips of its people in other corpora", corpus,
                     known.sum())  # fmt: skip
        rest, test = np.flatnonzero(~out & ~known), np.flatnonzero(out)
        if not len(rest):
            raise SplitError(
                f"loco: without {corpus} and its people, who are in the other corpora too, nothing "
                "is left to train on; add a corpus of other people, or use --split speaker"
            )
        splits.append(Split(corpus, *_validation(clips, rest, seed), test))
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
    splits = []
    for name, part in read_folds(path, clips).items():
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


def _known(clips: pd.DataFrame) -> bool:
    """Whether there is anything to keep together: named speakers, or common recordings."""
    return bool((clips["speaker"] != "").all() or groups_of(clips).duplicated().any())


def _need_speakers(clips: pd.DataFrame, least: int) -> int:
    """Return how many groups of people can be kept apart."""
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
    n = groups_of(clips).nunique()
    if n < least:
        raise SplitError(
            f"all {len(speakers)} speakers are linked by recordings that they share, so none can "
            "be held out: use --split random and read its score with care"
        )
    return n


def _validation(clips: pd.DataFrame, rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split training rows into (train, val): about an eighth, of other speakers where possible."""
    part = clips.iloc[rows]
    groups, labels = groups_of(part), part["label"]
    if groups.nunique() >= 3 and _known(part):
        # Folds of few speakers can miss a class; take the one that misses least, in training
        # above all.
        candidates = _by_speaker(part, 8, seed)
        if candidates:
            train, val = max(
                candidates, key=lambda fold: tuple(labels.iloc[rows].nunique() for rows in fold)
            )
            return rows[train], rows[val]
    return _stratified(clips, rows, max(len(rows) // 8, labels.nunique()), seed)


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
    labels = clips["label"].to_numpy()
    for split in splits:
        found = {classes[i] for i in set(labels[split.train].tolist())}
        if len(found) < 2:
            raise SplitError(
                f"{split.name}: all training clips are {', '.join(found)}, and a classifier takes "
                f"two classes; {_where(clips, split, classes)}"
            )
        if absent := [name for name in classes if name not in found]:
            log.warning("%s: no training clip of %s", split.name, ", ".join(absent))
    return splits


def _where(clips: pd.DataFrame, split: Split, classes: tuple[str, ...]) -> str:
    """Say who has the classes that no training clip is of, and what can be done about it."""
    lacking = clips[~clips["label"].isin(set(clips["label"].iloc[split.train]))]
    names = ", ".join(classes[i] for i in sorted(set(lacking["label"])))
    column = "corpus" if lacking["speaker"].eq("").any() else "speaker"
    who = sorted(set(lacking[column]))
    if len(who) > 3:
        return f"clips of {names} are all in other parts; try another --split or --seed"
    return (
        f"all clips of {names} are of {', '.join(who)}: add clips of {names} by others, or use "
        "--split random and read its score with care"
    )


def rotations(split: Split, clips: pd.DataFrame, n: int, seed: int) -> list[Split]:
    """Return n splits with the same test part and different validation parts.

    The first is the split itself. The others hold out other speakers of its training and
    validation parts (other clips, where speakers don't allow it), so that together the members
    of an ensemble are trained on all of them.
    """
    rows = np.sort(np.concatenate([split.train, split.val]))
    part = clips.iloc[rows]
    folds: list[tuple[np.ndarray, np.ndarray]] = []
    if _known(part):
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
            try:
                train, val = _stratified(clips, rows, len(split.val), seed + number)
            except SplitError as error:
                raise SplitError(
                    f"{split.name}: too few clips for an ensemble of {n}, whose members each "
                    f"validate on other clips ({error}), or train one head: --ensemble 1"
                ) from error
        rotated.append(Split(split.name, train, val, split.test))
    return rotated
