"""Corpora on disk: trees built from every naming rule and read back, CSVs, and the command."""

import json
import os
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_embed.audio import AudioFile
from ser_embed.bundled import DEMO_CORPUS, DEMO_TITLE
from ser_embed.corpora import __main__ as corpora
from ser_embed.corpora.listing import (
    Listing,
    discover,
    listing_of,
    read_corpus,
    read_csv,
    read_demo,
)
from ser_embed.corpora.naming import CORPORA, Utterance
from ser_embed.errors import CorpusError


class Named(NamedTuple):
    """A clip as its corpus names it, and what the name says."""

    folder: str
    stem: str
    speaker: str
    gender: str
    emotion: str
    intensity: str
    text_id: str
    recording: str = ""


# --- every naming rule, written out once more ------------------------------------------------


def ravdess(channel: str, emotions: list[str]) -> Iterator[Named]:
    for actor, gender in (("01", "male"), ("24", "female")):
        for number, emotion in enumerate(emotions, start=1):
            for level, intensity in (("01", "normal"), ("02", "strong")):
                if emotion == "neutral" and intensity == "strong":
                    continue
                stem = f"03-{channel}-{number:02d}-{level}-02-01-{actor}"
                yield Named(f"Actor_{actor}", stem, actor, gender, emotion, intensity, "02")


def tess() -> Iterator[Named]:
    codes = {"angry": "angry", "disgust": "disgust", "fear": "fearful", "happy": "happy",
             "neutral": "neutral", "ps": "surprised", "sad": "sad"}  # fmt: skip
    for speaker in ("OAF", "YAF"):
        for code, emotion in codes.items():
            for word in ("back", "youth"):
                stem = f"{speaker}_{word}_{code}"
                yield Named(f"{speaker}_{code}", stem, speaker, "female", emotion, "", word)
    yield Named("OAF_neutral", "OA_bite_neutral", "OAF", "female", "neutral", "", "bite")


def urdu() -> Iterator[Named]:
    codes = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
    for speaker, gender in (("SM4", "male"), ("SF12", "female")):
        for code, emotion in codes.items():
            for number in (53, 54, 55):
                recording = f"{speaker}-{code}{27 if number < 55 else 28}"
                stem = f"{speaker}_F2_{code}{number:03d}"
                yield Named(emotion, stem, speaker, gender, emotion, "", "", recording)


def crema_d() -> Iterator[Named]:
    codes = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "SAD": "sad"}
    levels = {"LO": "low", "MD": "medium", "HI": "high", "XX": ""}
    for speaker, gender in (("1001", "male"), ("1091", "female")):
        for code, emotion in codes.items():
            for level, intensity in levels.items():
                stem = f"{speaker}_IEO_{code}_{level}"
                yield Named("AudioWAV", stem, speaker, gender, emotion, intensity, "ieo")
        yield Named("AudioWAV", f"{speaker}_IEO_NEU_XX", speaker, gender, "neutral", "", "ieo")
    yield Named("AudioWAV", "1040_ITH_SAD_X", "1040", "male", "sad", "", "ith")


def emo_db() -> Iterator[Named]:
    codes = {"W": "angry", "L": "boredom", "E": "disgust", "A": "fearful", "F": "happy",
             "T": "sad", "N": "neutral"}  # fmt: skip
    for speaker, gender in (("03", "male"), ("16", "female")):
        for code, emotion in codes.items():
            for text in ("a01", "b10"):
                yield Named("wav", f"{speaker}{text}{code}b", speaker, gender, emotion, "", text)


def savee(in_folders: bool) -> Iterator[Named]:
    codes = {"a": "angry", "d": "disgust", "f": "fearful", "h": "happy", "n": "neutral",
             "sa": "sad", "su": "surprised"}  # fmt: skip
    for speaker in ("DC", "JE", "JK", "KL"):
        for code, emotion in codes.items():
            stem = f"{code}15" if in_folders else f"{speaker}_{code}15"
            folder = speaker if in_folders else "ALL"
            yield Named(folder, stem, speaker, "male", emotion, "", "15")


def nemo() -> Iterator[Named]:
    codes = {"anger": "angry", "fear": "fearful", "happiness": "happy", "neutral": "neutral",
             "sadness": "sad", "surprised": "surprised"}  # fmt: skip
    for speaker in ("EB0", "SM0"):
        for code, emotion in codes.items():
            for text in ("1", "77"):
                yield Named("samples", f"{speaker}_{code}_{text}", speaker, "", emotion, "", text)


SUNG = ["neutral", "calm", "happy", "sad", "angry", "fearful"]
CLIPS: dict[str, list[Named]] = {
    "ravdess": list(ravdess("01", [*SUNG, "disgust", "surprised"])),
    "ravdess-song": list(ravdess("02", SUNG)),
    "tess": list(tess()),
    "urdu": list(urdu()),
    "crema-d": list(crema_d()),
    "emo-db": list(emo_db()),
    "savee": list(savee(in_folders=False)),
    "nemo": list(nemo()),
}
LAYOUTS: dict[str, Callable[[str, str, str], str]] = {
    "as-released": lambda folder, stem, ending: f"{folder}/{stem}{ending}",
    "flat-lower": lambda folder, stem, ending: f"{stem}{ending}".lower(),
    "deep-upper": lambda folder, stem, ending: (
        f"Audio Files é/Archive.wav.d/{folder}/{stem}{ending}".upper()
    ),
}


@pytest.fixture(scope="session")
def audio(
    tmp_path_factory: pytest.TempPathFactory, write_tone: Callable[..., Path]
) -> dict[str, Path]:
    """A short clip by every ending; a wav in what libsndfile does not write (see tests/audio)."""
    folder = tmp_path_factory.mktemp("audio")
    clips = {ending: folder / f"tone{ending}" for ending in AudioFile.ENDINGS}
    samples, rate = soundfile.read(write_tone(clips[".wav"], seconds=0.2))
    for ending in (".flac", ".mp3", ".ogg"):
        soundfile.write(clips[ending], samples, rate)
    soundfile.write(clips[".opus"], samples, rate, format="OGG", subtype="OPUS")
    for path in clips.values():
        if not path.exists():
            shutil.copyfile(clips[".wav"], path)
    return clips


def build(
    root: Path, clips: list[Named], audio: dict[str, Path], layout: str = "as-released"
) -> dict[Path, Named]:
    """Lay clips out under `root`, the formats by turns, and return which path is which."""
    built = {}
    for i, clip in enumerate(clips):
        ending = AudioFile.ENDINGS[i % len(AudioFile.ENDINGS)]
        path = root / LAYOUTS[layout](clip.folder, clip.stem, ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(audio[ending].read_bytes() + clip.stem.encode())  # no two are the same
        built[path] = clip
    return built


def expected(corpus: str, path: Path, clip: Named) -> Utterance:
    people = "ravdess" if corpus == "ravdess-song" else corpus  # its actors sing there
    return Utterance(
        path, corpus, f"{people}:{clip.speaker}", clip.gender, clip.emotion, clip.intensity,
        clip.text_id, clip.recording and f"{corpus}:{clip.recording}",
    )  # fmt: skip


# --- the contract of every corpus ------------------------------------------------------------


def test_the_trees_cover_every_corpus_emotion_and_intensity() -> None:
    assert set(CLIPS) == set(CORPORA)
    for name, clips in CLIPS.items():
        emotions, intensities = set(CORPORA[name].emotions.values()), CORPORA[name].intensities
        if name == "ravdess-song":
            emotions -= {"disgust", "surprised"}  # never sung
        assert {clip.emotion for clip in clips} == emotions
        assert {clip.intensity for clip in clips} - {""} == set(intensities.values()) - {""}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("corpus", CORPORA)
def test_a_tree_is_read_back(
    tmp_path: Path, audio: dict[str, Path], corpus: str, layout: str
) -> None:
    built = build(tmp_path, CLIPS[corpus], audio, layout)
    listing = read_corpus(tmp_path, corpus)
    assert (listing.corpus, listing.root, listing.faults) == (corpus, tmp_path, ())
    assert listing.utterances == tuple(
        expected(corpus, path, clip) for path, clip in sorted(built.items())
    )


@pytest.mark.parametrize("ending", AudioFile.ENDINGS)
def test_clips_of_every_ending_decode(audio: dict[str, Path], ending: str) -> None:
    clip = AudioFile(audio[ending]).read()
    assert clip.samples.dtype == np.float32
    assert 0.19 < clip.seconds < 0.25


@pytest.mark.parametrize("layout", ["as-released", "deep-upper"])
def test_savee_is_read_from_a_folder_per_speaker(
    tmp_path: Path, audio: dict[str, Path], layout: str
) -> None:
    built = build(tmp_path, list(savee(in_folders=True)), audio, layout)
    listing = read_corpus(tmp_path, "savee")
    assert {u.path: u for u in listing.utterances} == {
        path: expected("savee", path, clip) for path, clip in built.items()
    }


def test_what_is_not_audio_is_passed_over(tmp_path: Path, audio: dict[str, Path]) -> None:
    build(tmp_path, CLIPS["urdu"], audio)
    (tmp_path / "README.md").write_text("read me")
    (tmp_path / "Angry.wav").mkdir()
    (tmp_path / "Angry.wav" / "notes.txt").write_text("a folder with an ending")
    shutil.copyfile(audio[".wav"], tmp_path / "._SM4_F2_A054.wav")  # left by macOS archives
    listing = read_corpus(tmp_path, "urdu")
    assert len(listing.utterances) == len(CLIPS["urdu"])
    assert not listing.faults


def test_one_file_is_a_corpus_of_its_folder(tmp_path: Path, audio: dict[str, Path]) -> None:
    path = next(iter(build(tmp_path, CLIPS["urdu"], audio)))
    for listing in (read_corpus(path, "urdu"), *discover(path)):
        assert [u.path for u in listing.utterances] == [path]
        assert listing.root == path.parent


def test_the_root_may_be_text(tmp_path: Path, audio: dict[str, Path]) -> None:
    build(tmp_path, CLIPS["urdu"], audio)
    assert read_corpus(str(tmp_path), "urdu") == read_corpus(tmp_path, "urdu")


# --- the real corpora ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corpus", "clips", "speakers", "genders", "emotions", "intensities"),
    [
        ("ravdess", 1440, 24, {"male": 720, "female": 720},
         {"neutral": 96, **dict.fromkeys(("calm", "happy", "sad", "angry", "fearful", "disgust",
                                          "surprised"), 192)},
         {"normal": 768, "strong": 672}),
        ("tess", 2800, 2, {"female": 2800},
         dict.fromkeys(("angry", "disgust", "fearful", "happy", "neutral", "surprised", "sad"),
                       400), {"": 2800}),
        ("urdu", 400, 29, {"male": 344, "female": 56},
         dict.fromkeys(("angry", "happy", "neutral", "sad"), 100), {"": 400}),
    ],
)  # fmt: skip
def test_the_real_corpora_have_their_known_sizes(
    shared: Path, corpus: str, clips: int, speakers: int, genders: dict[str, int],
    emotions: dict[str, int], intensities: dict[str, int],
) -> None:  # fmt: skip
    listing = read_corpus(shared / "corpora" / corpus, corpus)
    assert not listing.faults
    assert len(listing.utterances) == clips
    assert len({u.speaker for u in listing.utterances}) == speakers
    assert Counter(u.gender for u in listing.utterances) == genders
    assert Counter(u.emotion for u in listing.utterances) == emotions
    assert Counter(u.intensity for u in listing.utterances) == intensities


def test_tess_has_200_words_by_each_speaker_in_each_emotion(shared: Path) -> None:
    clips = read_corpus(shared / "corpora" / "tess", "tess").utterances
    assert set(Counter((u.speaker, u.emotion) for u in clips).values()) == {200}
    assert set(Counter((u.speaker, u.text_id) for u in clips).values()) == {7}


def test_discover_keeps_the_originals_apart(shared: Path) -> None:
    folder = shared / "corpora" / "originals"
    found = {listing.corpus: listing for listing in discover(folder)}
    assert {name: len(listing.utterances) for name, listing in found.items()} == {
        "ravdess": 4, "tess": 3, "urdu": 1
    }  # fmt: skip
    assert found["ravdess"].root == folder / "ravdess"
    assert found["urdu"].root == folder / "urdu" / "Angry"


# --- several corpora in one folder -----------------------------------------------------------


def test_discover_returns_every_corpus_once_in_the_order_of_the_registry(
    tmp_path: Path, audio: dict[str, Path]
) -> None:
    built = {name: build(tmp_path / f"my {name}", clips, audio) for name, clips in CLIPS.items()}
    shutil.copyfile(audio[".wav"], tmp_path / "holiday.wav")
    listings = discover(tmp_path)
    assert [listing.corpus for listing in listings] == list(CORPORA)
    for listing in listings:
        assert {u.path for u in listing.utterances} == set(built[listing.corpus])
        assert listing.root.is_relative_to(tmp_path / f"my {listing.corpus}")
        assert not listing.faults


def test_discover_finds_the_clips_of_corpora_that_share_a_folder(
    tmp_path: Path, audio: dict[str, Path]
) -> None:
    for name in ("urdu", "crema-d"):
        build(tmp_path / "all", CLIPS[name], audio, "flat-lower")
    urdu, crema_d = discover(tmp_path)
    assert (urdu.corpus, len(urdu.utterances)) == ("urdu", len(CLIPS["urdu"]))
    assert (crema_d.corpus, len(crema_d.utterances)) == ("crema-d", len(CLIPS["crema-d"]))
    assert urdu.root == crema_d.root == tmp_path / "all"


def test_discover_warns_of_files_that_belong_nowhere(
    tmp_path: Path, audio: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    build(tmp_path / "urdu", CLIPS["urdu"], audio, "flat-lower")
    discover(tmp_path)
    assert caplog.text == ""
    shutil.copyfile(next(iter(audio.values())), tmp_path / "urdu/holiday.wav")
    (listing,) = discover(tmp_path)
    assert len(listing.utterances) == len(CLIPS["urdu"])
    assert f"{tmp_path}: 1 audio files are named as no known corpus" in caplog.text
    assert "holiday.wav" in caplog.text


def test_discover_finds_nothing_where_nothing_is(tmp_path: Path) -> None:
    assert discover(tmp_path) == []
    with pytest.raises(CorpusError, match="no such folder"):
        discover(tmp_path / "missing")


# --- errors ----------------------------------------------------------------------------------


def test_an_unknown_corpus_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no corpus 'RAVDES'; known are ravdess, .*--csv"):
        read_corpus(tmp_path, "RAVDES")


def test_an_empty_folder_lists_the_endings(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no audio")
    with pytest.raises(CorpusError, match=r"no audio file in it \(\.wav \.flac .*\)") as caught:
        read_corpus(tmp_path, "ravdess")
    assert str(tmp_path) in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"missing: no such folder"):
        read_corpus(tmp_path / "missing", "ravdess")


def test_another_corpuss_folder_is_recognised(tmp_path: Path, audio: dict[str, Path]) -> None:
    build(tmp_path, CLIPS["tess"], audio)
    build(tmp_path, CLIPS["urdu"], audio)
    message = rf"They look like .*tess \({len(CLIPS['tess'])} files\)"
    with pytest.raises(CorpusError, match=message) as caught:
        read_corpus(tmp_path, "ravdess")
    assert f"urdu ({len(CLIPS['urdu'])} files)" in str(caught.value)
    assert "MM-01-EE-II-SS-RR-AA" in str(caught.value)


def test_names_of_no_corpus_lead_to_the_csv(tmp_path: Path, audio: dict[str, Path]) -> None:
    shutil.copyfile(audio[".wav"], tmp_path / "holiday.wav")
    with pytest.raises(CorpusError, match=r"instance holiday\.wav.* write a CSV with the header"):
        read_corpus(tmp_path, "ravdess")


def test_files_that_no_rule_places_are_faults_and_other_corpora_are_not(
    tmp_path: Path, audio: dict[str, Path]
) -> None:
    build(tmp_path, CLIPS["urdu"], audio)
    build(tmp_path, CLIPS["savee"], audio)
    for name in ("holiday.wav", "SM4_F2_D001.wav"):
        shutil.copyfile(audio[".wav"], tmp_path / name)
    listing = read_corpus(tmp_path, "urdu")
    assert len(listing.utterances) == len(CLIPS["urdu"])
    faults = {path.name: reason for path, reason in listing.faults}
    assert set(faults) == {"holiday.wav", "SM4_F2_D001.wav"}
    assert faults["holiday.wav"].startswith("the name doesn't follow urdu's rule S{M|F}")
    assert faults["SM4_F2_D001.wav"].startswith("urdu has no emotion code 'D'; it has A angry")


# --- the demo corpus -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "corpus"),
    [(None, "demo"), (DEMO_CORPUS, ""), (DEMO_CORPUS, "ravdess"), (DEMO_CORPUS / "Actor_03", "")],
    ids=["by-name", "by-folder", "as-ravdess", "one-actor"],
)
def test_the_demo_corpus_keeps_its_name(root: Path | None, corpus: str) -> None:
    listing = listing_of(root, corpus, None)
    assert listing.corpus == "demo"
    assert {u.corpus for u in listing.utterances} == {"demo"}
    assert all(u.speaker.startswith("demo:0") for u in listing.utterances)
    assert len(listing.utterances) == (60 if root == DEMO_CORPUS / "Actor_03" else 360)


def test_demo_clips_are_never_found_as_ravdess() -> None:
    assert discover(DEMO_CORPUS) == [read_demo()]
    assert "ravdess" not in [listing.corpus for listing in discover(DEMO_CORPUS.parent)]
    with pytest.raises(CorpusError, match=r"no audio file in it|none of its"):
        read_corpus(DEMO_CORPUS.parent, "ravdess")


def test_a_link_to_the_demo_corpus_is_still_the_demo_corpus(tmp_path: Path) -> None:
    (tmp_path / "ravdess").symlink_to(DEMO_CORPUS)
    assert listing_of(tmp_path / "ravdess", "ravdess", None).corpus == "demo"


# --- a user's own CSV ------------------------------------------------------------------------


def write_csv(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mine.csv"
    path.write_text(text, encoding=encoding, newline="")
    return path


def rows_of(listing: Listing) -> dict[str, dict[str, Any]]:
    return {u.path.name: asdict(u) for u in listing.utterances}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_csv_is_read_with_absolute_and_relative_paths(
    tmp_path: Path, encoding: str, newline: str
) -> None:
    elsewhere = tmp_path / "elsewhere" / "b.wav"
    lines = [
        "path,emotion,speaker,gender,intensity,split",
        "clips/a.wav,Happiness,anna,F,Strong,train",
        f"{elsewhere},sad,bert,male,,Test",
        '"clips/c, take 2.wav",neutral,,,,',
        "../d.wav, wütend , anna , w , , dev ",
    ]
    file = write_csv(tmp_path / "list", newline.join(lines), encoding)
    listing = read_csv(file)
    assert (listing.corpus, listing.root, listing.faults) == ("mine", file.parent, ())
    paths = [u.path for u in listing.utterances]
    assert paths == sorted(paths)
    assert set(paths) == {
        tmp_path / "list" / "clips" / "a.wav", elsewhere,
        tmp_path / "list" / "clips" / "c, take 2.wav", tmp_path / "list" / ".." / "d.wav",
    }  # fmt: skip
    rows = rows_of(listing)
    assert rows["a.wav"] == {
        "path": tmp_path / "list" / "clips" / "a.wav", "corpus": "mine", "speaker": "mine:anna",
        "gender": "female", "emotion": "Happiness", "intensity": "strong", "text_id": "",
        "recording": "", "part": "train", "start": None, "end": None,
    }  # fmt: skip
    assert (rows["b.wav"]["gender"], rows["b.wav"]["part"]) == ("male", "test")
    assert (rows["c, take 2.wav"]["speaker"], rows["c, take 2.wav"]["part"]) == ("", "")
    assert rows["d.wav"]["speaker"] == rows["a.wav"]["speaker"]
    assert (rows["d.wav"]["emotion"], rows["d.wav"]["gender"]) == ("wütend", "female")
    assert rows["d.wav"]["part"] == "val"


def test_columns_of_a_csv_come_in_any_order_case_and_company(tmp_path: Path) -> None:
    text = "note,Emotion, Path ,AGE\nx,angry,a.wav,31\ny,calm,b.wav,\n"
    rows = rows_of(read_csv(write_csv(tmp_path, text)))
    assert {name: row["emotion"] for name, row in rows.items()} == {
        "a.wav": "angry", "b.wav": "calm"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "gender"),
    [("f", "female"), ("Female", "female"), ("W", "female"), ("M", "male"), ("male", "male"),
     ("", ""), ("diverse", "diverse")],
)  # fmt: skip
def test_words_for_gender(tmp_path: Path, word: str, gender: str) -> None:
    file = write_csv(tmp_path, f"path,emotion,gender\na.wav,sad,{word}\n")
    assert read_csv(file).utterances[0].gender == gender


@pytest.mark.parametrize(
    ("word", "part"),
    [("train", "train"), ("VAL", "val"), ("valid", "val"), ("validation", "val"), ("dev", "val"),
     ("test", "test"), ("", "")],
)  # fmt: skip
def test_words_for_split(tmp_path: Path, word: str, part: str) -> None:
    file = write_csv(tmp_path, f"path,emotion,split\na.wav,sad,{word}\n")
    assert read_csv(file).utterances[0].part == part


def test_a_path_may_hold_any_character_but_a_line_end(tmp_path: Path) -> None:
    name = "a\u2028b\x85c\x1c.wav"
    file = write_csv(tmp_path, f"path,emotion\n{name},sad\n")
    assert read_csv(file).utterances[0].path == tmp_path / name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a.wav,happy\nb.wav,sad\n",
            r"header is 'a\.wav,happy' .utf-8, separated by commas.; it "
            "must name path,emotion.* first line must be a header",
        ),
        ("path\na.wav\n", "header is 'path' .utf-8, of one column"),
        ("emotion,speaker\nsad,anna\n", "header is 'emotion,speaker'"),
        ("path;feeling\na.wav;sad\n", "header is 'path;feeling' .utf-8, separated by semicolons"),
        ("", "header is 'empty'"),
        ("path,emotion\n", "no row after the header"),
        ("path,emotion\na.wav,\n", "a.wav: line 2: it has no emotion"),
        ("path,emotion\na.wav,NaN\n", "a.wav: line 2: it has no emotion"),
        ("path,emotion\na.wav\n", "line 2: it has no emotion"),
        ("path,emotion\n,sad\n", "line 2: it has no path"),
        ("path,Path,emotion\na.wav,b.wav,sad\n", "two columns of the header are called 'path'"),
        ("path,emotion,split\na.wav,sad,eval\n", "a.wav: split 'eval' is none of train, val .dev"),
        (f"path,emotion\n{'x' * 200_000},sad\n", "can't be read as CSV .line 2: field larger"),
        ('path,emotion\n"a.wav,sad\nb.wav,sad\n', "is there a quotation mark that isn't closed"),
        ('path,emotion\n"a.wav,sad\nb"b.wav,sad\n', "is there a quotation mark that isn't closed"),
        ('path,emotion\n"a.wav\nb.wav",sad\n', "line 2: a cell goes over several lines, from 'a"),
        ("PK\3\4", "it is an Excel or LibreOffice workbook; save it as CSV"),
        ("path,emotion\na\0.wav,sad\n", "holds NUL bytes"),
    ],
)
def test_a_csv_that_can_not_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = write_csv(tmp_path, text)
    with pytest.raises(CorpusError, match=message) as caught:
        read_csv(file)
    assert str(caught.value).startswith(str(file))


def test_a_csv_that_is_missing_or_not_text_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.csv", tmp_path):
        with pytest.raises(CorpusError, match="can't be read as CSV") as caught:
            read_csv(path)
        assert str(path) in str(caught.value)
    file = tmp_path / "cyrillic.csv"
    file.write_bytes(b"path,emotion\na.wav,\x81\x8d\n")
    with pytest.raises(CorpusError, match=r"its text is not utf-8 .*, not cp1252 .* save it as"):
        read_csv(file)


EXCEL = [
    ("utf-8", "sep=;\r\nPath;Emotion\r\nlisä\\a.wav;sad\r\n;\r\n"),
    ("utf-8-sig", "path\temotion\nlisä/a.wav\tsad\n\t\n"),
    ("utf-16", "PATH;EMOTION;;\r\nlisä\\a.wav;sad;;\r\n;;;\r\n"),
    ("utf-16-le", "file,emotion\nlisä/a.wav,sad\n"),
    ("utf-16-be", "File Name, Emotion \nlisä/a.wav, sad\n"),
    ("utf-32", "path|emotion\nlisä/a.wav|sad\n"),
    ("cp1252", '"path";"emotion"\r\n"lisä\\a.wav";"sad"\r\n'),
]


@pytest.mark.parametrize(("encoding", "text"), EXCEL, ids=[e for e, _ in EXCEL])
def test_item_7_tables_from_excel_are_read(
    tmp_path: Path, write_tone: Callable[..., Path], encoding: str, text: str
) -> None:
    path = write_tone(tmp_path / "lisä" / "a.wav")
    listing = read_csv(write_csv(tmp_path, text, encoding))
    assert [(u.path, u.emotion) for u in listing.utterances] == [(path, "sad")]
    assert not listing.faults


def test_item_7_a_name_is_found_however_its_accents_are_composed(
    tmp_path: Path, write_tone: Callable[..., Path]
) -> None:
    path = write_tone(tmp_path / unicodedata.normalize("NFD", "lisä.wav"))
    listing = read_csv(write_csv(tmp_path, "path,emotion\nlis\xe4.wav,sad\n"))
    assert listing.utterances[0].path.samefile(path)


@pytest.mark.parametrize(
    ("written", "there"),
    [("W/A.WAV", "w/a.wav"), ("w\\B.wav", "w/b.wav"), ("\xc9.wav", "e\u0301.wav"),
     ("~/w/a.wav", "w/a.wav"), ("~\\w\\a.wav", "w/a.wav"), ("file://{}/w/a%20b.wav", "w/a b.wav"),
     ("{}/w/a.wav", "w/a.wav"), ("~a.wav", "~a.wav")],
)  # fmt: skip
def test_item_7_a_name_is_found_as_windows_and_macos_would(
    tmp_path: Path, write_tone: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    written: str, there: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write_tone(tmp_path / there)
    (clip,) = read_csv(
        write_csv(tmp_path, f"path,emotion\n{written.format(tmp_path)},sad\n")
    ).utterances
    assert clip.path == path


def test_item_7_names_that_differ_in_capitals_alone_are_never_taken_for_one_another(
    tmp_path: Path, write_tone: Callable[..., Path]
) -> None:
    paths = [write_tone(tmp_path / name) for name in ("a.wav", "A.wav")]
    text = "path,emotion\na.wav,sad\nA.wav,happy\nA.WAV,angry\nx/../a.wav,sad\n"
    listing = read_csv(write_csv(tmp_path, text))
    found = {u.emotion: u.path for u in listing.utterances}
    assert found == {"sad": paths[0], "happy": paths[1], "angry": tmp_path / "A.WAV"}
    assert [reason for _, reason in listing.faults] == [
        "line 5: listed twice, first in line 2; kept once"
    ]


def test_item_7_an_address_is_no_path(tmp_path: Path) -> None:
    listing = read_csv(write_csv(tmp_path, "path,emotion\nhttps://x.org/a.wav,sad\nb.wav,sad\n"))
    assert [u.path.name for u in listing.utterances] == ["b.wav"]
    ((_, reason),) = listing.faults
    assert reason == (
        "line 2: https://x.org/a.wav is an address; download the file and write its path"
    )


@pytest.mark.parametrize(
    "header",
    ["path,emotion,speaker,gender,start,end", "File Name,Label,Speaker ID,Sex,Start Time,End Time",
     "\u200baudio,class,spk_id,sex,begin,stop", "filepath,CATEGORY,actor,gender,onset,end_s"],
)  # fmt: skip
def test_item_7_words_for_columns(
    tmp_path: Path, header: str, caplog: pytest.LogCaptureFixture
) -> None:
    (clip,) = read_csv(write_csv(tmp_path, f"{header}\na.wav,sad,7,F,1,2.5\n")).utterances
    assert (clip.path.name, clip.emotion, clip.speaker, clip.gender, clip.start, clip.end) == (
        "a.wav", "sad", "mine:7", "female", 1.0, 2.5,
    )  # fmt: skip
    assert not caplog.records


def test_item_7_columns_that_are_not_used_are_named_and_doubtful_ones_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (clip,) = read_csv(write_csv(tmp_path, "path,emotion,label,age\na,sad,x,3\n")).utterances
    assert clip.emotion == "sad"
    assert "not used are its columns label, age" in caplog.text
    for header in ("path,class,label", "path,emotion,speaker_id,actor"):
        with pytest.raises(CorpusError, match=r"could both be '.*'; give that name to the one"):
            read_csv(write_csv(tmp_path, f"{header}\na.wav,sad,happy,x\n"))


def test_item_7_a_guessed_encoding_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_csv(
        write_csv(tmp_path, "path,emotion\na.wav,\u0433\u0440\u0443\u0441\u0442\u044c\n", "cp1251")
    )
    assert "its text isn't UTF-8 and is read as cp1252" in caplog.text


def test_item_7_rows_that_are_no_clips_are_reported_and_the_others_read(tmp_path: Path) -> None:
    text = "path,emotion\na.wav,sad\n,sad\nb.wav,\nc, take 2.wav,happy\n,,\nd.wav,happy\n"
    listing = read_csv(write_csv(tmp_path, text))
    assert [u.path.name for u in listing.utterances] == ["a.wav", "d.wav"]
    assert {path.name: reason for path, reason in listing.faults} == {
        "mine.csv": "line 3: it has no path", "b.wav": "line 4: it has no emotion",
        "c": "line 5: it has more cells than the header ('happy'); put a path or word that holds "
             "the delimiter in quotation marks",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["nan", "NaN", "unknown", "-", "", "None", "N/A", "?", " UNK ", "<unk>", "(unknown)", "N.N.",
     "Unknown_Speaker", "\u2014", "...", "-1.0", "not known"],
)  # fmt: skip
def test_item_8_speakers_that_are_none_are_unnamed(tmp_path: Path, name: str) -> None:
    file = write_csv(tmp_path, f"path,emotion,speaker\na.wav,sad,{name}\nb.wav,sad,Nan Su\n")
    assert [u.speaker for u in read_csv(file).utterances] == ["", "mine:Nan Su"]


def test_item_1_a_table_may_name_a_known_corpuss_person(tmp_path: Path) -> None:
    text = "path,emotion,speaker\na.wav,sad,ravdess:07\nb.wav,sad,ravdess-song:07\nc.wav,sad,x:07\n"
    speakers = [u.speaker for u in read_csv(write_csv(tmp_path, text)).utterances]
    assert speakers == ["ravdess:07", "ravdess:07", "mine:x:07"]


def test_item_5_start_and_end_make_several_clips_of_one_file(tmp_path: Path) -> None:
    lines = [
        "path,emotion,start,end", "a.wav,sad,0,1.5", "a.wav,happy,1.5,", "a.wav,angry,,",
        'b.wav,sad,"0,5",0:01.25', "b.wav,sad,0 days 00:00:02,0 days 00:01:02.500000",
        "c.wav,sad,nan,NaT",
    ]  # fmt: skip
    listing = read_csv(write_csv(tmp_path, "\n".join(lines)))
    assert [(u.path.name, u.emotion, u.start, u.end) for u in listing.utterances] == [
        ("a.wav", "sad", None, 1.5), ("a.wav", "angry", None, None), ("a.wav", "happy", 1.5, None),
        ("b.wav", "sad", 0.5, 1.25), ("b.wav", "sad", 2.0, 62.5), ("c.wav", "sad", None, None),
    ]  # fmt: skip
    recordings = [u.recording for u in listing.utterances]
    assert recordings == ["mine:a.wav"] * 3 + ["mine:b.wav"] * 2 + [""]
    assert not listing.faults


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [("2", "2", "it ends at 2 s and starts at 2 s"), ("3", "2", "it ends at 2 s and starts at 3 s"),
     ("", "0", "it ends at 0 s and starts at 0 s"), ("-1", "2", "its start '-1' is no time"),
     ("inf", "", "its start 'inf' is no time"), ("now", "", "its start 'now' is no number")],
)  # fmt: skip
def test_item_5_ranges_that_are_none_are_reported(
    tmp_path: Path, start: str, end: str, reason: str
) -> None:
    text = f"path,emotion,start,end\na.wav,sad,0,1\na.wav,sad,{start},{end}\n"
    listing = read_csv(write_csv(tmp_path, text))
    assert len(listing.utterances) == 1
    ((path, found),) = listing.faults
    assert (path.name, found.startswith(f"line 3: {reason}")) == ("a.wav", True)


def test_item_5_a_duration_stands_for_the_end(tmp_path: Path) -> None:
    text = "path,emotion,start,duration\na.wav,sad,1,2\na.wav,sad,3.00000001,\na.wav,sad,3,\n"
    listing = read_csv(write_csv(tmp_path, text))
    assert [(u.start, u.end) for u in listing.utterances] == [(1.0, 3.0), (3.0, None)]
    assert listing.faults[0][1] == "line 4: listed twice, first in line 3; kept once"
    (whole,) = read_csv(write_csv(tmp_path, "path,emotion,duration\na.wav,sad,2\n")).utterances
    assert whole.end is None


def test_item_9_a_row_twice_is_one_clip_and_reported(tmp_path: Path) -> None:
    listing = read_csv(write_csv(tmp_path, "path,emotion\na.wav,sad\nb.wav,sad\nx/../a.wav,sad\n"))
    assert [u.path.name for u in listing.utterances] == ["a.wav", "b.wav"]
    ((path, reason),) = listing.faults
    assert (path.name, reason) == ("a.wav", "line 4: listed twice, first in line 2; kept once")


@pytest.mark.parametrize("order", [1, -1])
def test_item_9_rows_that_contradict_each_other_are_reported_in_any_order(
    tmp_path: Path, order: int
) -> None:
    rows = ["a.wav,sad,anna", "a.wav,happy,anna", "b.wav,sad,anna"][::order]
    listing = read_csv(write_csv(tmp_path, "\n".join(["path,emotion,speaker", *rows])))
    assert [u.path.name for u in listing.utterances] == ["b.wav"]
    ((path, reason),) = listing.faults
    lines = (2, 3) if order > 0 else (3, 4)
    assert path.name == "a.wav"
    assert reason == (
        f"label conflict: lines {lines[0]} and {lines[1]} give it 2 emotions, happy and sad"
    )


_CELL = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)
_CSV_TEXT = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=120),
    st.lists(st.lists(_CELL, max_size=7).map(",".join), max_size=6).map(
        lambda rows: "\n".join(["path,emotion,speaker,gender,intensity,split", *rows])
    ),
    st.text(alphabet="ab,\"'\n\r\t\0;", max_size=60).map(lambda text: f"path,emotion\n{text}"),
)


@settings(database=None, deadline=None, derandomize=True, max_examples=300)
@given(st.one_of(_CSV_TEXT.map(str.encode), st.binary(max_size=120)))
def test_no_csv_raises_anything_but_a_corpus_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "anything.csv"
    file.write_bytes(content)
    try:
        listing = read_csv(file)
    except CorpusError:
        return
    assert listing.utterances
    for utterance in listing.utterances:
        assert utterance.emotion
        assert utterance.part in ("", "train", "val", "test")
        assert "\0" not in str(utterance.path)


# --- links, what can't be read, what contradicts ---------------------------------------------


def test_item_4_links_to_folders_are_followed(tmp_path: Path, audio: dict[str, Path]) -> None:
    build(tmp_path / "disk" / "urdu", CLIPS["urdu"], audio)
    data = tmp_path / "data"
    data.mkdir()
    (data / "urdu").symlink_to(tmp_path / "disk" / "urdu")
    (listing,) = discover(data)
    assert len(listing.utterances) == len(CLIPS["urdu"])
    assert all(u.path.is_relative_to(data / "urdu") for u in listing.utterances)
    assert len(read_corpus(data / "urdu", "urdu").utterances) == len(CLIPS["urdu"])


def test_item_4_half_of_the_folders_linked_is_the_whole_corpus(
    tmp_path: Path, audio: dict[str, Path]
) -> None:
    built = build(tmp_path / "urdu", CLIPS["urdu"], audio)
    for name in ("angry", "happy"):
        (tmp_path / "urdu" / name).rename(tmp_path / name)
        (tmp_path / "urdu" / name).symlink_to(tmp_path / name)
    listing = read_corpus(tmp_path / "urdu", "urdu")
    assert {u.path for u in listing.utterances} == set(built)


def test_item_4_loops_double_ways_and_dead_links(tmp_path: Path, audio: dict[str, Path]) -> None:
    root = tmp_path / "urdu"
    built = build(root, CLIPS["urdu"], audio)
    shutil.copyfile(audio[".wav"], tmp_path / "SM9_F9_A001.wav")  # above the root: not in it
    (root / "0 again").symlink_to(root / "angry")  # sorts before what it leads to
    (root / "loop").symlink_to(root)
    (root / "angry" / "up").symlink_to(tmp_path)
    (root / "round").symlink_to(root / "round")
    (root / "Actor_09").symlink_to(tmp_path / "not mounted")
    os.mkfifo(root / "SM1_F1_A001.wav")
    listing = read_corpus(root, "urdu")
    assert {u.path for u in listing.utterances} == set(built)
    faults = {path.name: reason for path, reason in listing.faults}
    assert set(faults) == {"Actor_09", "round", "SM1_F1_A001.wav"}
    assert faults["Actor_09"] == f"a link to {tmp_path / 'not mounted'}, which isn't there"
    assert faults["SM1_F1_A001.wav"] == "neither a file nor a folder"


def test_item_4_a_corpus_on_a_disk_that_is_gone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ravdess").symlink_to(tmp_path / "gone")
    with pytest.raises(CorpusError, match=r"ravdess: a link to .*gone, which isn't there"):
        discover(tmp_path)


def test_item_11_an_unreadable_folder_is_reported(
    tmp_path: Path, audio: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build(tmp_path, CLIPS["urdu"], audio)
    scan = os.scandir

    def refuse(folder: Path) -> Any:
        if Path(folder) == tmp_path / "angry":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = read_corpus(tmp_path, "urdu")
    assert {u.path for u in listing.utterances} == {
        path for path in built if path.parent.name != "angry"
    }
    assert listing.faults == ((tmp_path / "angry", "the folder can't be read (Permission denied)"),)
    with pytest.raises(CorpusError, match=r"angry: the folder can't be read .Permission denied."):
        read_corpus(tmp_path / "angry", "urdu")


def test_item_11_a_folder_of_no_audio_lists_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.docx", "b.docx", "notes.txt", "LICENCE"):
        (tmp_path / name).write_text("no audio")
    with pytest.raises(CorpusError, match=r"no audio file in it .*; it holds 2 .docx, 1 "):
        listing_of(tmp_path, "ravdess", None)


def test_item_11_archives_among_the_clips_are_named(
    tmp_path: Path, audio: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    build(tmp_path, CLIPS["urdu"], audio)
    for name in ("more.zip", "more.tar.gz"):
        (tmp_path / name).write_bytes(b"")
    assert not listing_of(tmp_path, "", None).faults
    assert "2 archives in it (.gz .zip) are not looked into" in caplog.text


def test_item_11_demo_is_no_name_for_other_clips(tmp_path: Path, audio: dict[str, Path]) -> None:
    build(tmp_path, CLIPS["urdu"], audio)
    with pytest.raises(CorpusError, match="is of the synthetic demo corpus, so --corpus demo"):
        listing_of(tmp_path, "demo", None)


def test_item_11_the_one_corpus_of_a_folder_is_taken(
    tmp_path: Path, audio: dict[str, Path]
) -> None:
    build(tmp_path, CLIPS["urdu"], audio)
    for name in ("", "urdu", "URDU", " Urdu"):
        assert listing_of(tmp_path, name, None) == read_corpus(tmp_path, "urdu")


@pytest.mark.parametrize(
    ("name", "near"),
    [("ravdes", "ravdess"), ("RAVDESS_songs", "ravdess-song"), ("cremma", "crema-d")],
)
def test_item_11_a_wrong_name_is_wrong_usage_and_the_nearest_is_offered(
    tmp_path: Path, name: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert corpora.main([str(tmp_path), "--corpus", name]) == 2
    assert f"Did you mean --corpus {near}?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["CREMA-D", "cremad", "Crema_D", "crema d"])
def test_item_11_a_corpuss_name_is_known_in_any_spelling(
    tmp_path: Path, audio: dict[str, Path], name: str
) -> None:
    build(tmp_path, CLIPS["crema-d"], audio)
    assert listing_of(tmp_path, name, None).corpus == "crema-d"


def test_item_11_a_demo_folder_of_ones_own_stays_synthetic(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "ravdess"
    shutil.copytree(DEMO_CORPUS / "Actor_03", folder / "Actor_03")
    (folder / "README.md").write_text(f"{DEMO_TITLE}\nmade by me\n", encoding="utf-8")
    for root in (folder, folder.parent, folder / "Actor_03"):
        for name in ("", "ravdess", "demo"):
            listing = listing_of(root, name, None)
            assert (listing.corpus, listing.synthetic, len(listing.utterances)) == (
                "demo",
                True,
                60,
            )
            assert {u.speaker for u in listing.utterances} == {"demo:03"}
    (found,) = discover(tmp_path)
    assert found.synthetic
    clip = next(iter(found.utterances)).path
    table = write_csv(tmp_path, f"path,emotion\n{clip},sad\n")
    assert listing_of(None, "", table).synthetic
    table.write_text(f"path,emotion\n{clip},sad\nreal.wav,sad\n")
    assert listing_of(None, "", table).synthetic  # a file that is missing is of neither kind
    (tmp_path / "real.wav").write_bytes(clip.read_bytes())
    with pytest.raises(CorpusError, match="synthetic demo corpus and others; they are never mixed"):
        listing_of(None, "", table)


def test_item_11_a_demo_folder_beside_a_corpus_is_left_out(
    tmp_path: Path, audio: dict[str, Path]
) -> None:
    build(tmp_path / "speech", CLIPS["ravdess"], audio)
    shutil.copytree(DEMO_CORPUS, tmp_path / "demo")
    (listing,) = discover(tmp_path)
    assert (listing.synthetic, len(listing.utterances)) == (False, len(CLIPS["ravdess"]))
    assert len(listing_of(tmp_path, "ravdess", None).utterances) == len(CLIPS["ravdess"])


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_item_9_equal_bytes_with_two_labels_are_reported_in_any_order(
    tmp_path: Path, write_tone: Callable[..., Path], order: tuple[str, str]
) -> None:
    write_tone(tmp_path / "a.wav", seed=1)
    shutil.copyfile(tmp_path / "a.wav", tmp_path / "b.wav")
    shutil.copyfile(tmp_path / "a.wav", tmp_path / "c.wav")
    write_tone(tmp_path / "d.wav", seed=2)  # as long, other samples
    rows = [f"{order[0]}.wav,sad,anna", f"{order[1]}.wav,happy,anna", "d.wav,happy,bert"]
    listing = listing_of(None, "", write_csv(tmp_path, "\n".join(["path,emotion,speaker", *rows])))
    assert [u.path.name for u in listing.utterances] == ["d.wav"]
    reason = "label conflict: a.wav, b.wav have the same bytes and 2 emotions (happy, sad)"
    assert [(path.name, why) for path, why in listing.faults] == [
        ("a.wav", reason), ("b.wav", reason)
    ]  # fmt: skip
    rows = ["a.wav,sad,anna", "b.wav,sad,bert", "c.wav,sad,"]
    listing = listing_of(None, "", write_csv(tmp_path / "x", "path,emotion\nnone.wav,sad\n"))
    assert len(listing.utterances) == 1  # a file that isn't there is the reader's to report
    with pytest.raises(CorpusError, match=r"have the same bytes and 2 speakers"):
        listing_of(None, "", write_csv(tmp_path, "\n".join(["path,emotion,speaker", *rows])))


def test_item_9_ranges_of_one_file_are_no_conflict(
    tmp_path: Path, write_tone: Callable[..., Path]
) -> None:
    write_tone(tmp_path / "a.wav", seed=1)
    text = "path,emotion,start,end\na.wav,sad,0,0.5\na.wav,happy,0.5,1\na.wav,angry,,\n"
    listing = listing_of(None, "", write_csv(tmp_path, text))
    assert (len(listing.utterances), listing.faults) == (3, ())


def test_item_9_one_name_with_other_bytes_is_a_conflict_and_copies_are_none(
    tmp_path: Path, write_tone: Callable[..., Path]
) -> None:
    names = ["SM1_F1_A001.wav", "SM1_F1_H001.wav", "SM1_F1_N001.wav"]
    for number, name in enumerate(names):
        for folder in ("one", "two"):
            write_tone(tmp_path / folder / name, seed=number)
    write_tone(tmp_path / "two" / names[0], seed=9)
    listing = listing_of(tmp_path, "urdu", None)
    assert [u.path.name for u in listing.utterances] == [*names[1:], *names[1:]]  # kept once later
    reason = (
        f"name conflict: one/{names[0]}, two/{names[0]} have one name and other bytes; keep one "
        "of them"
    )
    assert listing.faults == (
        (tmp_path / "one" / names[0], reason), (tmp_path / "two" / names[0], reason)
    )  # fmt: skip


def test_item_9_ravdess_film_and_sound_are_one_utterance(
    tmp_path: Path, write_tone: Callable[..., Path]
) -> None:
    for number, modality in enumerate(("01", "02", "03")):
        write_tone(tmp_path / f"{modality}-01-04-01-01-01-10.wav", seed=number)
    listing = listing_of(tmp_path, "ravdess", None)
    assert [u.path.stem[:2] for u in listing.utterances] == ["03"]
    assert {reason for _, reason in listing.faults} == {
        "the same utterance as 03-01-04-01-01-01-10, which is kept"
    }


@pytest.mark.parametrize("corpus", ["ravdess", "tess", "urdu"])
def test_item_9_the_real_corpora_hold_no_contradiction(shared: Path, corpus: str) -> None:
    assert not listing_of(shared / "corpora" / corpus, corpus, None).faults


def test_item_2_a_table_is_called_by_its_ending_too(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("path,emotion,speaker\na.wav,sad,x\n")
    (tmp_path / "metadata.tsv").write_text("path\temotion\tspeaker\na.wav\tsad\tx\n")
    names = [read_csv(tmp_path / f"metadata.{e}").utterances[0].speaker for e in ("csv", "tsv")]
    assert names == ["metadata:x", "metadata-tsv:x"]


# --- which of the two ------------------------------------------------------------------------


def test_a_csv_stands_alone(tmp_path: Path) -> None:
    file = write_csv(tmp_path, "path,emotion\na.wav,sad\n")
    assert listing_of(None, "", file) == read_csv(file)
    for root, corpus in ((tmp_path, ""), (None, "ravdess")):
        with pytest.raises(CorpusError, match="leave out ROOT and --corpus"):
            listing_of(root, corpus, file)


def test_a_folder_needs_a_corpus_and_the_error_says_which_it_holds(
    tmp_path: Path, audio: dict[str, Path]
) -> None:
    build(tmp_path / "a", CLIPS["urdu"], audio)
    build(tmp_path / "b", CLIPS["emo-db"], audio)
    with pytest.raises(CorpusError, match=r"--corpus ravdess\|.* \(found there: urdu, emo-db\)"):
        listing_of(tmp_path, "", None)
    assert listing_of(tmp_path, "urdu", None) == read_corpus(tmp_path, "urdu")
    for corpus in ("", "ravdess"):
        with pytest.raises(CorpusError, match="give a folder and --corpus NAME, or --csv FILE"):
            listing_of(None, corpus, None)


# --- the command -----------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path, write_tone: Callable[..., Path], audio: dict[str, Path]) -> Path:
    """Four good clips of two speakers, two of them alike, and three files that can't be used."""
    write_tone(tmp_path / "Angry" / "SM1_F1_A001.wav", seconds=1.8, seed=1)
    write_tone(tmp_path / "Sad" / "SF2_F1_S001.wav", seconds=1.8, rate=44_100, channels=2, seed=2)
    write_tone(tmp_path / "Sad" / "SF2_F1_S002.flac", seconds=1.8, seed=3)
    shutil.copyfile(tmp_path / "Angry" / "SM1_F1_A001.wav", tmp_path / "SM1_F1_A002.wav")
    (tmp_path / "SM1_F1_A003.wav").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "SM1_F1_A004.wav").write_bytes(b"")
    shutil.copyfile(audio[".wav"], tmp_path / "holiday.wav")
    return tmp_path


def result_of(done: CompletedProcess[str]) -> dict[str, Any]:
    return json.loads(done.stdout.splitlines()[-1])


def test_the_command_prints_the_table(
    damaged: Path, run: Callable[..., CompletedProcess[str]]
) -> None:
    done = run("-m", "ser_embed.corpora", damaged, "--corpus", "urdu")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    table = {line[0]: line[1] for line in lines}
    assert list(table)[:12] == [
        "corpus", "clips", "hours", "speakers", "unnamed", "genders", "emotions", "intensities",
        "rates", "duplicates", "SM1_F1_A002.wav", "long",
    ]  # fmt: skip
    assert table["clips"] == "4"
    assert table["hours"] == "0.002"
    assert table["emotions"] == "angry 2, sad 2"
    assert table["rates"] == "16000 Hz x 1 3, 44100 Hz x 2 1"
    assert table["SM1_F1_A002.wav"] == f"= {Path('Angry', 'SM1_F1_A001.wav')}"
    assert table["faults"] == "3"
    assert "git lfs pull" in table["SM1_F1_A003.wav:"]
    assert "the file is empty" in table["SM1_F1_A004.wav:"]
    assert "doesn't follow urdu's rule" in table["holiday.wav:"]


def test_the_command_ends_with_one_json_object(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert corpora.main([str(damaged), "--corpus", "urdu", "--json"]) == 3
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    faults = result.pop("faults")
    assert set(faults) == {"SM1_F1_A003.wav", "SM1_F1_A004.wav", "holiday.wav"}
    assert result.pop("duplicates") == [["SM1_F1_A002.wav", str(Path("Angry", "SM1_F1_A001.wav"))]]
    assert result == {
        "corpus": "urdu", "clips": 4, "hours": 0.002, "speakers": 2, "unnamed": 0, "long": {},
        "genders": {"male": 2, "female": 2}, "emotions": {"angry": 2, "sad": 2},
        "intensities": {"unspecified": 4}, "rates": {"16000 Hz x 1": 3, "44100 Hz x 2": 1},
    }  # fmt: skip


def test_item_5_the_command_reads_ranges_and_names_every_one_that_is_none(
    tmp_path: Path, write_tone: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_tone(tmp_path / "a.wav", seconds=6.0)
    text = "path,emotion,start,end\na.wav,sad,0,3\na.wav,happy,3,6\na.wav,sad,5,4\na.wav,sad,1,99\n"
    assert corpora.main(["--csv", str(write_csv(tmp_path, text)), "--json"]) == 3
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["clips"], result["hours"], result["duplicates"]) == (2, 0.002, [])
    first, second = result["faults"]["a.wav"].split("; ")
    assert first == "line 4: it ends at 4 s and starts at 5 s"
    assert "from 1 s to 99 s exceeds the file" in second


def test_item_16_one_long_clip_and_one_short_is_enough() -> None:
    assert Listing.longest_usual([3.0, 60.0]) == 15.0
    assert Listing.longest_usual([]) == 5.0


def test_item_16_a_clip_far_longer_than_its_corpus_is_named(
    tmp_path: Path, write_tone: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1, 6):
        write_tone(tmp_path / f"SM1_F1_A00{number}.wav", seconds=3.0, seed=number)
    write_tone(tmp_path / "SM1_F1_A006.wav", seconds=60.0, seed=6)
    assert corpora.main([str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["long"] == {"SM1_F1_A006.wav": 60.0}
    assert corpora.main([str(tmp_path)]) == 0
    assert "SM1_F1_A006.wav: 60.0 s, far longer than the others" in capsys.readouterr().out


def test_the_command_finds_the_two_ravdess_files_that_are_one(
    shared: Path, run: Callable[..., CompletedProcess[str]]
) -> None:
    root = shared / "corpora" / "ravdess" / "Actor_07"
    done = run("-m", "ser_embed.corpora", root, "--corpus", "ravdess", "--json")
    assert done.returncode == 0
    result = result_of(done)
    assert (result["clips"], result["speakers"], result["faults"]) == (60, 1, {})
    (pair,) = result["duplicates"]
    assert {Path(name).stem for name in pair} == {"03-01-03-01-02-01-07", "03-01-03-01-02-02-07"}


def test_the_command_says_what_was_wrong(
    tmp_path: Path, run: Callable[..., CompletedProcess[str]]
) -> None:
    done = run("-m", "ser_embed.corpora", tmp_path, "--corpus", "ravdess", "--json")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"error: {tmp_path}: no audio file in it" in done.stderr
    assert result_of(done)["error"].startswith(f"{tmp_path}: no audio file in it")


def test_wrong_usage_is_status_2(run: Callable[..., CompletedProcess[str]]) -> None:
    done = run("-m", "ser_embed.corpora", "--corpse", "ravdess")
    assert done.returncode == 2
    assert "--corpse" in done.stderr


def test_the_command_reads_a_csv_and_names_its_missing_files(
    tmp_path: Path, write_tone: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_tone(tmp_path / "a.wav")
    file = write_csv(tmp_path, "path,emotion\na.wav,excited\ngone.wav,sad\n")
    assert corpora.main(["--csv", str(file), "--json"]) == 3
    result = json.loads(capsys.readouterr().out)
    assert (result["corpus"], result["emotions"], result["speakers"]) == ("mine", {"excited": 1}, 0)
    assert result["faults"] == {"gone.wav": "No such file or directory"}


@pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="file names are text on this platform"
)
def test_a_file_name_that_is_not_text_ends_nothing(
    tmp_path: Path, audio: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / os.fsdecode(b"Enrag\xe9")
    folder.mkdir()
    shutil.copyfile(audio[".wav"], folder / "SM1_F1_A001.wav")
    (folder / "SM1_F1_A002.wav").write_text("")
    assert corpora.main([str(tmp_path), "--corpus", "urdu"]) == 3
    assert "Enrag\\udce9" in capsys.readouterr().out
    assert corpora.main([str(tmp_path), "--corpus", "urdu", "--json"]) == 3
    result = json.loads(capsys.readouterr().out)
    assert result["clips"] == 1
    (fault,) = result["faults"]
    assert tmp_path / fault == folder / "SM1_F1_A002.wav"


@pytest.mark.parametrize("stem", ["ravdess", "demo"])
def test_a_csv_never_passes_for_a_known_corpus(tmp_path: Path, stem: str) -> None:
    table = tmp_path / f"{stem}.csv"
    table.write_text("path,emotion,speaker\na.wav,happy,x\n")
    listing = read_csv(table)
    assert listing.corpus == f"{stem}-csv"
    assert listing.utterances[0].speaker == f"{stem}-csv:x"


GROW = """
import resource, sys
from pathlib import Path
from ser_embed.corpora.listing import read_csv
def go(n):
    path = Path(sys.argv[1]) / f"{n}.csv"
    with path.open("w") as file:
        file.write("path,emotion,speaker\\n")
        for i in range(n):
            file.write(f"{i % 999}/clip-{i}.wav,sad,{i % 50}\\n")
    listing = read_csv(path)
    assert sum(1 for _ in listing.utterances) == len(listing.utterances) == n
    assert listing.utterances[n // 2].path < listing.utterances[-1].path
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = go(1000)
print(go(int(sys.argv[2])) - before)
"""


def test_a_csv_of_a_million_lines_would_fit_in_memory(
    tmp_path: Path, run: Callable[..., CompletedProcess[str]]
) -> None:
    pytest.importorskip("resource", reason="there is no resource module on this system")
    done = run("-c", GROW, tmp_path, 100_000)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 100  # MB: a million fit in one GB


def test_clips_of_a_csv_are_a_sequence(tmp_path: Path) -> None:
    listing = read_csv(write_csv(tmp_path, "path,emotion\nb.wav,sad\na.wav,happy\nc.wav,sad\n"))
    clips = listing.utterances
    assert [clips[0], clips[1], clips[-1]] == list(clips)
    assert list(clips[:2]) == list(clips)[:2]
    with pytest.raises(IndexError):
        _ = clips[3]
