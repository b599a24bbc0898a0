"""Who is trained on and who is tested: a contract over every rule, and each rule's own promise."""

import csv
import logging
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_embed.corpora.labels import SCHEMES
from ser_embed.corpora.listing import read_corpus
from ser_embed.errors import SplitError
from ser_embed.splits.folds import read_folds
from ser_embed.splits.names import SPLITS
from ser_embed.splits.people import Split, audit
from ser_embed.splits.rules import make_splits, rotations

CLASSES = ("positive", "neutral", "negative")
RULES = [*SPLITS, "folds"]
SPEAKER_AWARE = ["speaker", "kfold", "loso", "loco"]


def make_clips(
    corpora: dict[str, int], per_class: int = 4, n_classes: int = 3, halves: bool = False
) -> pd.DataFrame:
    """A table of clips: corpora by number of speakers, so many clips of each class a speaker."""
    rows = []
    for corpus, n_speakers in corpora.items():
        for speaker in range(n_speakers):
            for label in range(n_classes):
                for clip in range(per_class):
                    name = f"{corpus}-{speaker:02}-{label}-{clip}"
                    pair = f"{corpus}:{speaker}-{label}-{clip // 2}" if halves else ""
                    rows.append((label, f"{corpus}:{speaker:02}", corpus, pair, f"{name}.wav"))
    table = pd.DataFrame(rows, columns=["label", "speaker", "corpus", "recording", "path"])
    numbers = table["speaker"].str[-2:].astype(int)
    table["gender"] = np.where(numbers % 2, "male", "female")
    table["sha256"] = [f"{row:064x}" for row in range(len(table))]
    table["part"] = np.select([numbers == 0, numbers == 1], ["test", "val"], "train")
    return table


def write_folds(file: Path, clips: pd.DataFrame, n_folds: int = 3) -> str:
    """A published list: each speaker is tested in one fold."""
    numbers = clips["speaker"].str[-2:].astype(int)
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["file", "label", *(f"fold_{k + 1}" for k in range(n_folds))])
        for path, number in zip(clips["path"], numbers, strict=True):
            parts = ["test" if number % n_folds == k else "train" for k in range(n_folds)]
            writer.writerow([Path(path).stem, "x", *parts])
    return f"folds:{file}"


def rule_of(name: str, clips: pd.DataFrame, folder: Path) -> str:
    return write_folds(folder / "folds.csv", clips) if name == "folds" else name


def speakers(clips: pd.DataFrame, rows: np.ndarray) -> set[str]:
    return set(clips["speaker"].iloc[rows])


def recordings(clips: pd.DataFrame, rows: np.ndarray) -> set[str]:
    return set(clips["recording"].iloc[rows]) - {""}


def same(a: list[Split], b: list[Split]) -> bool:
    return [(s.name, s.train.tolist(), s.val.tolist(), s.test.tolist()) for s in a] == [
        (s.name, s.train.tolist(), s.val.tolist(), s.test.tolist()) for s in b
    ]


# --- the contract ----------------------------------------------------------------------------

CONTRACT_CLIPS = make_clips({"urdu": 6, "ravdess": 5, "tess": 2}, halves=True)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_gives_parts_that_can_be_trained_and_tested_on(
    name: str, tmp_path: Path
) -> None:
    clips = CONTRACT_CLIPS
    for split in make_splits(rule_of(name, clips, tmp_path), clips, CLASSES, seed=3):
        parts = [split.train, split.val, split.test]
        rows = np.concatenate(parts)
        assert all(len(part) for part in parts)
        assert len(set(rows.tolist())) == len(rows)  # without overlap
        assert rows.min() >= 0
        assert rows.max() < len(clips)
        assert set(clips["label"].iloc[split.train]) == {0, 1, 2}
        assert split.name


@pytest.mark.parametrize("name", RULES)
def test_every_rule_repeats_itself_by_seed(name: str, tmp_path: Path) -> None:
    rule = rule_of(name, CONTRACT_CLIPS, tmp_path)
    first = make_splits(rule, CONTRACT_CLIPS, CLASSES, seed=0)
    assert same(first, make_splits(rule, CONTRACT_CLIPS, CLASSES, seed=0))
    others = [make_splits(rule, CONTRACT_CLIPS, CLASSES, seed=seed) for seed in range(1, 6)]
    # The CSV's own split has a validation part: nothing is left to chance.
    assert any(not same(first, other) for other in others) == (name != "given")


@pytest.mark.parametrize("name", RULES)
def test_no_rule_touches_the_global_generators_or_the_table(name: str, tmp_path: Path) -> None:
    clips = CONTRACT_CLIPS.copy()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    make_splits(rule_of(name, clips, tmp_path), clips, CLASSES, seed=0)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    pd.testing.assert_frame_equal(clips, CONTRACT_CLIPS)


@pytest.mark.parametrize("name", SPEAKER_AWARE)
def test_speakers_are_on_one_side_and_their_recordings_with_them(name: str) -> None:
    clips = CONTRACT_CLIPS
    for split in make_splits(name, clips, CLASSES, seed=1):
        parts = [split.train, split.val, split.test]
        for i, one in enumerate(parts):
            for other in parts[i + 1 :]:
                assert not speakers(clips, one) & speakers(clips, other)
                assert not recordings(clips, one) & recordings(clips, other)
        told = audit(split, clips)
        assert told["shared_speakers"] == told["halves"] == told["duplicates"] == 0


class LogCapture(logging.Handler):
    """What the package logs within a block; a fixture would be one for all of the examples."""

    def __enter__(self) -> "LogCapture":
        """Begin."""
        self.texts: list[str] = []
        logging.getLogger("ser_embed").addHandler(self)
        return self

    def __exit__(self, *raised: object) -> None:
        """End."""
        logging.getLogger("ser_embed").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Note a message."""
        self.texts.append(record.getMessage())


@settings(max_examples=40, deadline=None)
@given(
    rule=st.sampled_from(["random", *SPEAKER_AWARE]),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    per_class=st.integers(1, 6),
    missing=st.floats(0, 0.6),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_table_is_split_well_or_refused(
    rule: str, sizes: list[int], per_class: int, missing: float, seed: int
) -> None:
    whole = make_clips({f"c{i}": n for i, n in enumerate(sizes)}, per_class)
    kept = np.random.default_rng(seed).random(len(whole)) >= missing
    clips = whole[kept].reset_index(drop=True)
    try:
        with LogCapture() as logged:
            splits = make_splits(rule, clips, CLASSES, seed)
    except SplitError:
        return
    assert splits
    for split in splits:
        rows = np.concatenate([split.train, split.val, split.test])
        assert len(split.train) > 0
        assert len(split.val) > 0
        assert len(split.test) > 0
        assert len(set(rows.tolist())) == len(rows)
        absent = {0, 1, 2} - set(clips["label"].iloc[split.train])
        assert len(absent) < 2
        for label in absent:  # with whoever is held out
            assert f"{split.name}: no training clip of {CLASSES[label]}" in logged.texts
        if rule in SPEAKER_AWARE:
            assert audit(split, clips)["shared_speakers"] == 0


# --- random ----------------------------------------------------------------------------------


def test_random_is_the_papers_counts() -> None:
    """RAVDESS speech without calm, TESS and URDU: 4,235 clips -> 3,389 / 423 / 423."""
    labels = np.repeat([0, 1, 2], [1200, 835, 2200])
    clips = make_clips({"ravdess": 4235}, per_class=1, n_classes=1).assign(label=labels)
    (split,) = make_splits("random", clips, CLASSES, seed=0)
    assert (len(split.train), len(split.val), len(split.test)) == (3389, 423, 423)
    for part in (split.train, split.val, split.test):
        shares = np.bincount(labels[part]) / len(part)
        np.testing.assert_allclose(shares, np.bincount(labels) / 4235, atol=0.002)


def test_random_refuses_what_ten_percent_cannot_hold() -> None:
    clips = make_clips({"a": 3}, per_class=3)  # 27 clips: 2 would have to hold 3 classes
    with pytest.raises(SplitError, match="27 clips are too few for a random 80/10/10 split of 3"):
        make_splits("random", clips, CLASSES, seed=0)


# --- speaker ---------------------------------------------------------------------------------


def test_speaker_holds_out_speakers_of_every_corpus() -> None:
    clips = make_clips({"ravdess": 24, "urdu": 29})
    (split,) = make_splits("speaker", clips, CLASSES, seed=0)
    counts = {
        part: Counter(name.split(":")[0] for name in speakers(clips, getattr(split, part)))
        for part in ("train", "val", "test")
    }
    assert counts["test"] == {"ravdess": 4, "urdu": 4}
    assert counts["val"] == {"ravdess": 4, "urdu": 4}
    assert counts["train"] == {"ravdess": 16, "urdu": 21}


def test_of_two_speakers_one_is_trained_on_and_one_tested() -> None:
    clips = make_clips({"ravdess": 8, "tess": 2})
    (split,) = make_splits("speaker", clips, CLASSES, seed=0)
    tess = {"tess:00", "tess:01"}
    assert len(speakers(clips, split.train) & tess) == 1
    assert len(speakers(clips, split.test) & tess) == 1
    assert not speakers(clips, split.val) & tess


def test_a_corpus_of_one_speaker_is_trained_on() -> None:
    clips = make_clips({"ravdess": 8, "mine": 1})
    (split,) = make_splits("speaker", clips, CLASSES, seed=0)
    assert "mine:00" in speakers(clips, split.train)


def test_with_two_speakers_in_all_validation_is_the_trained_ones_clips() -> None:
    clips = make_clips({"tess": 2}, per_class=16)
    (split,) = make_splits("speaker", clips, CLASSES, seed=0)
    assert speakers(clips, split.train) == speakers(clips, split.val)
    assert len(speakers(clips, split.test)) == 1
    assert not speakers(clips, split.test) & speakers(clips, split.val)
    assert len(split.val) == 6  # an eighth of 48, every class in it
    assert set(clips["label"].iloc[split.val]) == {0, 1, 2}


def test_speaker_balances_classes_that_hang_on_speakers() -> None:
    """As in URDU, most speakers have one emotion: a blind draw would lose classes."""
    whole = make_clips({"urdu": 24}, per_class=10)
    only = whole["speaker"].str[-2:].astype(int) % 3
    clips = whole[whole["label"] == only].reset_index(drop=True)
    for seed in range(3):
        (split,) = make_splits("speaker", clips, CLASSES, seed)
        for part in (split.train, split.val, split.test):
            assert set(clips["label"].iloc[part]) == {0, 1, 2}


def test_speaker_refuses_corpora_of_one_speaker_each() -> None:
    clips = make_clips({"a": 1, "b": 1}, per_class=9)
    with pytest.raises(SplitError, match=r"no corpus has two speakers.*--split loco.*random"):
        make_splits("speaker", clips, CLASSES, seed=0)


# --- the cross-validations -------------------------------------------------------------------


@pytest.mark.parametrize(("n_speakers", "n_folds"), [(12, 5), (3, 3)])
def test_kfold_tests_each_clip_once(n_speakers: int, n_folds: int) -> None:
    clips = make_clips({"ravdess": n_speakers}, per_class=8)
    splits = make_splits("kfold", clips, CLASSES, seed=0)
    assert [split.name for split in splits] == [f"fold {i + 1}" for i in range(n_folds)]
    tested = np.concatenate([split.test for split in splits])
    assert sorted(tested.tolist()) == list(range(len(clips)))


def test_loso_tests_each_speaker_alone() -> None:
    clips = make_clips({"ravdess": 5, "tess": 2})
    splits = make_splits("loso", clips, CLASSES, seed=0)
    assert [split.name for split in splits] == sorted(clips["speaker"].unique())
    for split in splits:
        assert speakers(clips, split.test) == {split.name}
        assert len(split.train) + len(split.val) + len(split.test) == len(clips)


def test_loco_tests_each_corpus_alone() -> None:
    clips = make_clips({"ravdess": 5, "tess": 2, "urdu": 3})
    splits = make_splits("loco", clips, CLASSES, seed=0)
    assert [split.name for split in splits] == ["ravdess", "tess", "urdu"]
    for split in splits:
        assert set(clips["corpus"].iloc[split.test]) == {split.name}
        assert split.name not in set(clips["corpus"].iloc[np.r_[split.train, split.val]])
        assert len(split.train) + len(split.val) + len(split.test) == len(clips)


def test_loco_needs_no_speakers() -> None:
    clips = make_clips({"a": 4, "b": 4}).assign(speaker="")
    assert len(make_splits("loco", clips, CLASSES, seed=0)) == 2


def test_validation_leaves_training_every_class() -> None:
    """One speaker alone has class 2 besides the tested one: it must not go to validation."""
    whole = make_clips({"a": 10}, per_class=4)
    has_two = whole["speaker"].isin(["a:00", "a:01"])
    clips = whole[(whole["label"] < 2) | has_two].reset_index(drop=True)
    for seed in range(8):
        for split in make_splits("loso", clips, CLASSES, seed):
            assert set(clips["label"].iloc[split.train]) == {0, 1, 2}


# --- given and folds -------------------------------------------------------------------------


def test_given_is_what_the_csv_says() -> None:
    clips = make_clips({"mine": 6})
    (split,) = make_splits("given", clips, CLASSES, seed=0)
    for name in ("train", "val", "test"):
        assert getattr(split, name).tolist() == np.flatnonzero(clips["part"] == name).tolist()


def test_given_without_validation_takes_training_speakers() -> None:
    clips = make_clips({"mine": 6})
    clips.loc[clips["part"] == "val", "part"] = "train"
    clips.loc[:2, "part"] = ""  # clips without a mark are left out
    (split,) = make_splits("given", clips, CLASSES, seed=0)
    assert split.test.tolist() == np.flatnonzero(clips["part"] == "test").tolist()
    assert not speakers(clips, split.train) & speakers(clips, split.val)
    assert not {0, 1, 2} & set(np.r_[split.train, split.val, split.test].tolist())


def test_folds_follow_the_list_whatever_the_folder_case_and_ending(tmp_path: Path) -> None:
    clips = make_clips({"ravdess": 6})
    rule = write_folds(tmp_path / "list.csv", clips)
    moved = clips.assign(
        path=[f"Deep/Er/{p.replace('.wav', '.FLAC').upper()}" for p in clips["path"]]
    )
    assert same(
        make_splits(rule, clips, CLASSES, seed=0), make_splits(rule, moved, CLASSES, seed=0)
    )
    splits = make_splits(rule, clips, CLASSES, seed=0)
    assert [split.name for split in splits] == ["fold_1", "fold_2", "fold_3"]
    for k, split in enumerate(splits):
        assert speakers(clips, split.test) == {f"ravdess:{k:02}", f"ravdess:{k + 3:02}"}


def test_folds_name_files_with_their_ending_and_leave_out_the_rest(tmp_path: Path) -> None:
    clips = make_clips({"a": 4})
    file = tmp_path / "list.csv"
    listed = clips[clips["speaker"] != "a:03"]
    rows = [f"{p},{'test' if '-00-' in p else 'VAL' if '-01-' in p else ' Train '}"
            for p in listed["path"]]  # fmt: skip
    file.write_text("\ufefffile,fold_1\n" + "\n".join(rows))  # as spreadsheets save it
    (split,) = make_splits(f"folds:{file}", clips, CLASSES, seed=0)
    assert speakers(clips, split.test) == {"a:00"}
    assert speakers(clips, split.val) == {"a:01"}
    assert speakers(clips, split.train) == {"a:02"}


def folds_of(tmp_path: Path, paths: list[str], lines: list[str]) -> np.ndarray:
    """The part of each of some clips by a list of one fold."""
    file = tmp_path / "list.csv"
    file.write_text("\n".join(["file,fold_1", *lines]))
    clips = make_clips({"a": 4}).iloc[: len(paths)].assign(path=paths)
    return read_folds(file, clips)["fold_1"]


def test_item_21_folds_are_matched_by_relative_path_first(tmp_path: Path) -> None:
    paths = ["ann/001.wav", "bob/001.wav", "cid/001.wav"]
    lines = ["bob/001.wav,test", "ann\\001,train"]
    assert folds_of(tmp_path, paths, lines).tolist() == ["train", "test", ""]
    paths = [f"data/{path}" for path in paths]
    assert folds_of(tmp_path, paths, lines).tolist() == ["train", "test", ""]
    assert folds_of(tmp_path, ["x/001.wav"], ["audio/001.mp3,test"]).tolist() == ["test"]
    both = ["x/001.wav", "x/001.mp3"]
    assert folds_of(tmp_path, both, ["001.wav,train", "001.mp3,test"]).tolist() == ["train", "test"]


def test_item_21_an_ambiguous_stem_is_an_error_that_says_so(tmp_path: Path) -> None:
    paths = ["ann/001.wav", "bob/001.wav"]
    with pytest.raises(SplitError, match=r"line 2: .* is ambiguous: .*a/ann/001.wav, a/bob/001"):
        folds_of(tmp_path, paths, ["001,train"])
    with pytest.raises(SplitError, match=r"ann/001.wav is ambiguous: lines 2 and 3 are"):
        folds_of(tmp_path, paths[:1], ["x/001,train", "y/001,test"])
    assert folds_of(tmp_path, paths[:1], ["x/001,train", "y/001,train"]).tolist() == ["train"]


def test_item_21_a_list_may_name_the_corpus_first(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("file,folder,fold_1\na/x/001.wav,x,train\nb/x/001.wav,x,test\n")
    clips = make_clips({"a": 2}).iloc[:2].assign(path="x/001.wav", corpus=["b", "a"])
    assert {name: part.tolist() for name, part in read_folds(file, clips).items()} == {
        "fold_1": ["test", "train"]  # and `folder` is no fold
    }
    file.write_text("file,fold_1\nx/001.wav,train\n")
    with pytest.raises(SplitError, match=r"it could mean b/x/001.wav, a/x/001.wav; write it"):
        read_folds(file, clips)


def test_item_21_accents_are_one_letter_however_composed(tmp_path: Path) -> None:
    assert folds_of(tmp_path, ["e\u0301.wav"], ["\xe9.wav,test"]).tolist() == ["test"]


def test_item_21_rows_of_a_list_that_name_no_clip_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folds_of(tmp_path, ["a.wav"], ["a,test", "b,train", "c,train"])
    assert "2 rows of" in caplog.text
    with pytest.raises(SplitError, match=r"the row has more cells than the header \('train'\)"):
        folds_of(tmp_path, ["a, b.wav"], ["a, b.wav,train"])


@pytest.mark.parametrize("word", ["val", "valid", "validation", "dev", " DEV ", "Validation"])
def test_item_21_words_for_validation(tmp_path: Path, word: str) -> None:
    paths, lines = ["a.wav", "b.wav", "c.wav"], [f"a,{word}", "b,train", "c,"]
    assert folds_of(tmp_path, paths, lines).tolist() == ["val", "train", ""]


def test_item_21_an_unknown_word_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match=r"a: fold_1 is 'eval', which is none of train, val .dev"):
        folds_of(tmp_path, ["a.wav"], ["a,eval"])


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [*SPLITS, "folds:none.csv"])
def test_a_class_with_one_clip_is_named(rule: str) -> None:
    clips = make_clips({"a": 4, "b": 4}, n_classes=2)
    clips = pd.concat([clips, clips.iloc[[0]].assign(label=2)], ignore_index=True)
    with pytest.raises(SplitError, match=r"'negative' has 1 clips.*--labels FILE"):
        make_splits(rule, clips, CLASSES, seed=0)


@pytest.mark.parametrize("rule", ["speaker", "kfold", "loso"])
def test_one_speaker_cannot_be_held_out(rule: str) -> None:
    clips = make_clips({"mine": 1}, per_class=9)
    with pytest.raises(SplitError, match=r"one speaker \(mine:00\).*--split random"):
        make_splits(rule, clips, CLASSES, seed=0)


@pytest.mark.parametrize("rule", ["speaker", "kfold", "loso"])
def test_missing_speakers_are_counted(rule: str) -> None:
    clips = make_clips({"mine": 4})
    clips.loc[:4, "speaker"] = ""
    with pytest.raises(SplitError, match=r"5 clips have no speaker.*speaker column.*random"):
        make_splits(rule, clips, CLASSES, seed=0)


def test_an_unknown_rule_lists_the_known() -> None:
    with pytest.raises(
        SplitError, match=r"no split 'speakers'; there are random, speaker, .*folds:"
    ):
        make_splits("speakers", CONTRACT_CLIPS, CLASSES, seed=0)


def test_loco_with_one_corpus_names_it() -> None:
    with pytest.raises(SplitError, match="only ravdess"):
        make_splits("loco", make_clips({"ravdess": 4}), CLASSES, seed=0)


def test_given_without_marks_says_where_they_belong() -> None:
    clips = make_clips({"mine": 4}).assign(part="")
    with pytest.raises(
        SplitError, match=r"marked train and test in the CSV's split column.* 0 and 0"
    ):
        make_splits("given", clips, CLASSES, seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "can't be read"),
        ("", "needs the header file"),
        ("file,Fold 1,fold_1\na-00-0-0,train,test\n", "two columns .* are called 'fold_1'"),
        ("file,fold_1\n", "needs the header file.*rows under it"),
        ("file,part\na-00-0-0,train\n", "needs the header file"),
        ("who,fold_1\na-00-0-0,train\n", "needs the header file"),
        ("file,fold_1\nother,train\n", "names none of the 48 clips, such as a-00-0-0.wav"),
        ("file,fold_1\na-00-0-0,train\n", "fold_1 needs clips marked train and clips marked test"),
        ("fold_1,file\ntrain\n", "names none of the 48 clips"),
        ("file,fold_1\n" + "x" * 200_000 + ",train\n", "can't be read"),
    ],
    ids=["no file", "empty", "fold twice", "no rows", "no fold", "no file column", "none",
         "no test", "short row", "huge field"],
)  # fmt: skip
def test_a_bad_fold_list_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "list.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SplitError, match=f"list.csv: .*{message}"):
        make_splits(f"folds:{file}", make_clips({"a": 4}), CLASSES, seed=0)


def test_a_fold_list_that_is_not_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(SplitError, match="can't be read"):
        make_splits(f"folds:{file}", CONTRACT_CLIPS, CLASSES, seed=0)


def test_too_few_clips_to_validate_on() -> None:
    """Two speakers: one is tested, and the other's clips don't stretch to two parts."""
    clips = make_clips({"a": 2}, per_class=2)
    with pytest.raises(SplitError, match=r"6 training clips, 2 in the smallest class.*add clips"):
        make_splits("speaker", clips, CLASSES, seed=0)


def test_as_many_folds_as_the_largest_class_has_clips() -> None:
    whole = make_clips({"a": 12}, per_class=1)
    kept = whole["speaker"].str[-2:].astype(int) % 3 == whole["label"]  # 4 clips of each class
    clips = whole[kept].reset_index(drop=True)
    splits = make_splits("kfold", clips, CLASSES, seed=0)
    assert len(splits) == 4
    assert sorted(np.concatenate([split.test for split in splits]).tolist()) == list(range(12))


# --- people and recordings -------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["speaker", "random", "loso"])
def test_members_take_turns_in_what_they_validate_on(rule: str) -> None:
    clips = make_clips({"a": 8, "b": 6}, per_class=8)
    for split in make_splits(rule, clips, CLASSES, seed=0)[:2]:
        turns = rotations(split, clips, 5, seed=0)
        assert len(turns) == 5
        assert same(turns[:1], [split])
        seen = set(split.train) | set(split.val)
        for turn in turns:
            np.testing.assert_array_equal(turn.test, split.test)
            assert set(turn.train) | set(turn.val) == seen
            assert not set(turn.train) & set(turn.val)
            assert set(clips["label"].iloc[turn.train]) == {0, 1, 2}
            if rule != "random":
                assert not speakers(clips, turn.train) & speakers(clips, turn.val)
        for one in range(5):
            for other in range(one):
                assert set(turns[one].val) != set(turns[other].val)
        assert same(rotations(split, clips, 5, seed=0), turns)


def test_more_members_than_speakers_come_round_again() -> None:
    clips = make_clips({"a": 5})
    (split,) = make_splits("speaker", clips, CLASSES, seed=0)
    turns = rotations(split, clips, 9, seed=0)
    assert len(turns) == 9
    assert all(len(turn.val) for turn in turns)


def test_audit_counts_by_hand() -> None:
    clips = pd.DataFrame({
        "label": [0, 1, 0, 1, 0, 1], "speaker": ["a", "b", "a", "", "c", ""],
        "sha256": ["1", "2", "3", "4", "1", "2"], "recording": ["r", "", "s", "r", "s", ""],
    })  # fmt: skip
    split = Split("x", np.array([0, 1]), np.array([2]), np.array([3, 4, 5]))
    assert audit(split, clips) == {
        "train": 2, "val": 1, "test": 3, "test_speakers": 1, "shared_speakers": 0,
        "duplicates": 2, "near_duplicates": 0, "halves": 2, "unnamed": 2, "unnamed_training": 0,
    }  # fmt: skip
    assert audit(Split("x", split.test, np.array([1]), np.array([0, 2])), clips) == {
        "train": 3, "val": 1, "test": 2, "test_speakers": 1, "shared_speakers": 0,
        "duplicates": 1, "near_duplicates": 0, "halves": 2, "unnamed": 0, "unnamed_training": 2,
    }  # fmt: skip


def two_corpora_of_the_same_people() -> pd.DataFrame:
    """Speech and song of six people, and another corpus of six others."""
    clips = make_clips({"ravdess": 6, "song": 6, "tess": 6}, per_class=6)
    return clips.assign(speaker=clips["speaker"].str.replace("song:", "ravdess:"))


@pytest.mark.parametrize("rule", SPEAKER_AWARE)
@pytest.mark.parametrize("seed", range(5))
def test_item_1_a_person_in_two_corpora_is_on_one_side(rule: str, seed: int) -> None:
    clips = two_corpora_of_the_same_people()
    for split in make_splits(rule, clips, CLASSES, seed):
        assert audit(split, clips)["shared_speakers"] == 0
        assert not speakers(clips, split.train) & speakers(clips, split.val)
        for turn in rotations(split, clips, 3, seed):
            assert not speakers(clips, turn.train) & speakers(clips, turn.val)


def test_item_1_corpora_of_the_same_people_are_balanced_as_one() -> None:
    """Six people are 4, 1 and 1, although they are in two corpora."""
    clips = two_corpora_of_the_same_people()
    (split,) = make_splits("speaker", clips, CLASSES, seed=0)
    assert audit(split, clips)["test_speakers"] == 2  # one of ravdess and song, one of tess
    assert len(speakers(clips, split.train)) == 8


def test_item_1_loco_leaves_out_a_corpus_and_its_people() -> None:
    clips = two_corpora_of_the_same_people()
    splits = make_splits("loco", clips, CLASSES, seed=0)
    assert [split.name for split in splits] == ["ravdess", "song", "tess"]
    for split in splits[:2]:
        assert set(clips["corpus"].iloc[split.train]) == {"tess"}
    with pytest.raises(SplitError, match=r"without ravdess and its people.*--split speaker"):
        make_splits(
            "loco", clips[clips["corpus"] != "tess"].reset_index(drop=True), CLASSES, seed=0
        )


@pytest.mark.parametrize("rule", SPEAKER_AWARE)
def test_item_5_a_common_recording_is_on_one_side(rule: str) -> None:
    """Dialogues, two people each, cut by time ranges; each is one file."""
    clips = make_clips({"a": 8, "b": 6}, per_class=6)
    dialogue = clips["speaker"].str[-2:].astype(int) // 2
    clips["recording"] = clips["corpus"] + "/" + dialogue.astype(str) + ".wav"
    for split in make_splits(rule, clips, CLASSES, seed=0):
        counts = audit(split, clips)
        assert counts["halves"] == counts["shared_speakers"] == 0
        assert not recordings(clips, split.train) & recordings(clips, split.val)
    if rule == "loso":
        names = [split.name for split in make_splits(rule, clips, CLASSES, seed=0)]
        assert names[0] == "a:00+a:01"
        assert len(names) == 7


def test_item_5_recordings_are_kept_together_without_speakers_too() -> None:
    clips = make_clips({"a": 8, "b": 6}, per_class=6).assign(speaker="")
    clips["recording"] = clips["path"].str[:4]
    for split in make_splits("loco", clips, CLASSES, seed=0):
        assert not recordings(clips, split.train) & recordings(clips, split.val)
        for turn in rotations(split, clips, 3, seed=0):
            assert not recordings(clips, turn.train) & recordings(clips, turn.val)


def test_item_5_everybody_in_one_recording_cannot_be_held_out() -> None:
    clips = make_clips({"a": 4}, per_class=6).assign(recording="meeting.wav")
    with pytest.raises(SplitError, match="all 4 speakers are linked by recordings"):
        make_splits("speaker", clips, CLASSES, seed=0)


def test_item_5_two_ranges_of_a_file_are_no_duplicates() -> None:
    clips = make_clips({"a": 4}).assign(sha256="one file", start=0.0, end=1.0)
    clips["start"] = np.arange(len(clips)) // 2 * 2.0
    clips["end"] = clips["start"] + 1
    split = Split("x", np.arange(1, 3), np.array([3]), np.array([0, 10, 11]))
    assert audit(split, clips)["duplicates"] == 1


def test_item_3_near_duplicates_are_found_by_name_and_length() -> None:
    clips = pd.DataFrame({
        "label": 0, "speaker": "c:1001", "corpus": "c", "recording": "", "emotion": "sad",
        "sha256": [f"{row}" for row in range(6)],
        "path": ["wav/1_A.wav", "mp3/1_a.MP3", "mp3/1_a.mp3", "mp3/2.mp3", "wav/3.wav", "x/3.mp3"],
        "seconds": [2.0, 2.05, 3.0, 2.0, 1.0, 1.0],
    })  # fmt: skip
    clips.loc[5, "speaker"] = "c:1002"  # another's third clip
    split = Split("x", np.array([0, 4]), np.array([], int), np.array([1, 2, 3, 5]))
    found = audit(split, clips)
    assert (found["near_duplicates"], found["duplicates"]) == (1, 0)
    assert audit(split, clips.assign(twin=["7", "", "", "7", "", ""]))["near_duplicates"] == 2


# --- classes and small parts -----------------------------------------------------------------


@pytest.mark.parametrize("rule", ["loso", "loco"])
def test_item_22_a_class_missing_in_training_is_no_refusal(
    rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    clips = make_clips({"a": 4, "b": 4}, per_class=6)
    only = clips["speaker"].eq("a:00") if rule == "loso" else clips["corpus"].eq("a")
    clips = clips[only | (clips["label"] != 2)].reset_index(drop=True)
    make_splits(rule, clips, CLASSES, seed=0)
    assert "no training clip of negative" in caplog.text


@pytest.mark.parametrize("rule", ["loso", "kfold"])
def test_item_22_a_class_of_one_speaker_alone_is_named_with_advice_that_helps(rule: str) -> None:
    clips = make_clips({"a": 6}, n_classes=2)
    clips = clips[(clips["label"] == 0) | (clips["speaker"] == "a:03")].reset_index(drop=True)
    message = "all clips of neutral are of a:03: add clips of neutral by others, or use --split"
    with pytest.raises(SplitError, match=message):
        make_splits(rule, clips, CLASSES[:2], 0)
    assert make_splits("random", clips, CLASSES[:2], 0)


def test_item_22_parts_too_small_for_an_ensemble_end_in_a_sentence() -> None:
    clips = make_clips({"a": 2}, per_class=3).assign(speaker="")
    split = Split("x", np.arange(0, 9), np.arange(9, 11), np.arange(11, 18))
    with pytest.raises(SplitError, match=r"x: too few clips for an ensemble of 5.*--ensemble 1"):
        rotations(split, clips, 5, seed=0)


# --- the real corpora, by name ---------------------------------------------------------------


def corpus_clips(shared: Path, corpus: str) -> pd.DataFrame:
    """What a store's table would say of a real corpus; the bytes stand for themselves by path."""
    listing = read_corpus(shared / "corpora" / corpus, corpus)
    table = pd.DataFrame([asdict(u) for u in listing.utterances])
    scheme = SCHEMES["emotion8"]
    table["label"] = scheme.encode(table["emotion"], table["intensity"])
    classes = sorted(table["label"].unique())
    table["label"] = table["label"].map({label: i for i, label in enumerate(classes)})
    table["path"] = table["sha256"] = table["path"].map(str)
    table.attrs["classes"] = tuple(scheme.classes[i] for i in classes)
    return table


@pytest.fixture(scope="module")
def real(shared: Path) -> dict[str, pd.DataFrame]:
    return {corpus: corpus_clips(shared, corpus) for corpus in ("ravdess", "tess", "urdu")}


def published(shared: Path, clips: pd.DataFrame, corpus: str) -> list[Split]:
    rule = f"folds:{shared / 'corpora' / 'emobox' / corpus}.csv"
    return make_splits(rule, clips, clips.attrs["classes"], seed=0)


def test_the_published_folds_of_ravdess(shared: Path, real: dict[str, pd.DataFrame]) -> None:
    clips = real["ravdess"]
    splits = published(shared, clips, "ravdess")
    assert len(splits) == 6
    assert sum(len(split.test) for split in splits) == len(clips) == 1440
    for split in splits:
        parts = [speakers(clips, p) for p in (split.train, split.val, split.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 24  # disjoint
        assert len(parts[2]) == 4


def test_the_published_folds_of_tess_and_urdu_share_speakers(
    shared: Path, real: dict[str, pd.DataFrame]
) -> None:
    (tess,) = published(shared, real["tess"], "tess")
    (urdu,) = published(shared, real["urdu"], "urdu")
    # The list says OAF_bite_neutral, the official file is OA_bite_neutral: left out.
    assert len(tess.train) + len(tess.val) + len(tess.test) == 2799
    assert len(urdu.train) + len(urdu.val) + len(urdu.test) == 400
    assert audit(tess, real["tess"])["test_speakers"] in (1, 2)
    told = audit(urdu, real["urdu"])
    assert told["shared_speakers"] > 0
    assert told["halves"] > 0


def test_urdu_halves_are_split_by_random_and_kept_by_speaker(real: dict[str, pd.DataFrame]) -> None:
    clips = real["urdu"]
    classes = clips.attrs["classes"]
    (split,) = make_splits("random", clips, classes, seed=0)
    told = audit(split, clips)
    assert told["halves"] > 0
    assert told["shared_speakers"] > 0
    for rule in ("speaker", "kfold"):
        for split in make_splits(rule, clips, classes, seed=0):
            told = audit(split, clips)
            assert told["halves"] == told["shared_speakers"] == 0
            # Nor between training and validation.
            assert not recordings(clips, split.train) & recordings(clips, split.val)


def test_the_three_real_corpora_together(real: dict[str, pd.DataFrame]) -> None:
    whole = pd.concat([table.assign(emotion=table["emotion"]) for table in real.values()])
    scheme = SCHEMES["sentiment3"]
    labels = scheme.encode(whole["emotion"], whole["intensity"])
    whole = whole.assign(label=labels)
    whole = whole[whole["label"] >= 0].reset_index(drop=True)
    (split,) = make_splits("speaker", whole, scheme.classes, seed=0)
    test = whole.iloc[split.test]
    assert set(test["corpus"]) == {"ravdess", "tess", "urdu"}
    assert set(test["label"]) == {0, 1, 2}
    assert set(test["gender"]) == {"female", "male"}
    assert audit(split, whole)["shared_speakers"] == 0


def test_item_22_the_speaker_who_alone_has_every_class_is_trained_on() -> None:
    counts = {"a:00": [1, 0, 2], "a:01": [1, 1, 1], "a:02": [1, 2, 0]}
    clips = make_clips({"a": 3}, per_class=2)
    number = clips.groupby(["speaker", "label"]).cumcount()
    wanted = [counts[s][label] for s, label in zip(clips["speaker"], clips["label"], strict=True)]
    clips = clips[number < wanted].reset_index(drop=True)
    for seed in range(8):
        (split,) = make_splits("speaker", clips, CLASSES, seed)
        assert speakers(clips, split.train) == {"a:01"}
