"""Naming rules against the corpora's own file lists, their oddities, and names of any kind."""

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_embed.corpora.labels import EMOTIONS
from ser_embed.corpora.naming import CORPORA, Utterance, recognise
from ser_embed.errors import CorpusError

# One name of each corpus, written as its authors write it.
EXAMPLES = {
    "ravdess": "Actor_12/03-01-06-02-02-01-12.wav",
    "ravdess-song": "Actor_12/03-02-06-02-02-01-12.wav",
    "tess": "OAF_Pleasant_surprise/OAF_youth_ps.wav",
    "urdu": "Angry/SM4_F2_A054.wav",
    "crema-d": "AudioWAV/1076_MTI_SAD_XX.wav",
    "emo-db": "wav/16b10Wb.wav",
    "savee": "AudioData/DC/sa15.wav",
    "nemo": "samples/SM0_anger_77.wav",
}


def parse(name: str, corpus: str) -> Utterance:
    utterance = CORPORA[corpus].parse(Path(name))
    assert utterance is not None, f"{name} is not of {corpus}"
    return utterance


# --- the contract of every corpus ------------------------------------------------------------


def test_every_corpus_has_an_example() -> None:
    assert set(EXAMPLES) == set(CORPORA)


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_corpus_speaks_the_common_vocabulary(corpus: str) -> None:
    rule = CORPORA[corpus]
    assert rule.name == corpus
    assert set(rule.emotions.values()) <= set(EMOTIONS)
    assert rule.rule
    assert rule.licence


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_name_is_of_one_corpus_alone(corpus: str) -> None:
    path = Path(EXAMPLES[corpus])
    assert [name for name, rule in CORPORA.items() if rule.parse(path)] == [corpus]
    found = recognise(path)
    assert found is not None
    assert found.corpus == corpus
    assert found.path == path
    assert found.speaker.startswith("ravdess:" if corpus == "ravdess-song" else f"{corpus}:")
    assert found.gender in ("female", "male") or corpus == "nemo"  # whose names don't say


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_case_does_not_matter(corpus: str, change: Callable[[str], str]) -> None:
    as_written, changed = Path(EXAMPLES[corpus]), Path(change(EXAMPLES[corpus]))
    found = CORPORA[corpus].parse(changed)
    assert found is not None
    assert {**asdict(found), "path": as_written} == asdict(parse(EXAMPLES[corpus], corpus))


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("name", ["{stem} (1).wav", "x{stem}.wav", "{stem}_.wav", "{stem}.16k.wav"])
def test_a_name_with_more_around_it_is_not_the_corpuss(corpus: str, name: str) -> None:
    path = Path("somewhere") / name.format(stem=Path(EXAMPLES[corpus]).stem)
    assert CORPORA[corpus].parse(path) is None
    assert recognise(path) is None


# --- fields of single corpora ----------------------------------------------------------------


def test_ravdess_fields() -> None:
    clip = parse("03-01-06-02-01-02-23.wav", "ravdess")
    assert clip == Utterance(
        Path("03-01-06-02-01-02-23.wav"), "ravdess", "ravdess:23", "male", "fearful", "strong", "01"
    )


def test_item_1_ravdess_speech_and_song_are_two_corpora_of_the_same_people() -> None:
    speech, song = "03-01-04-01-01-01-10.wav", "03-02-04-01-01-01-10.wav"
    assert CORPORA["ravdess"].parse(Path(song)) is None
    assert CORPORA["ravdess-song"].parse(Path(speech)) is None
    assert parse(speech, "ravdess").emotion == parse(song, "ravdess-song").emotion == "sad"
    assert parse(song, "ravdess-song").speaker == parse(speech, "ravdess").speaker == "ravdess:10"


def test_tess_takes_the_emotion_from_the_file_whatever_the_folder_says() -> None:
    for folder in ("OAF_Pleasant_surprise", "YAF_pleasant_surprised", "oaf_SAD", "."):
        assert parse(f"{folder}/OAF_bath_ps.wav", "tess").emotion == "surprised"


def test_the_one_tess_file_that_is_named_oa_is_by_oaf() -> None:
    clip = parse("OAF_neutral/OA_bite_neutral.wav", "tess")
    assert clip.speaker == parse("OAF_bite_sad.wav", "tess").speaker == "tess:OAF"
    assert (clip.emotion, clip.text_id) == ("neutral", "bite")


def test_urdu_halves_share_a_recording() -> None:
    pairs = [parse(f"SM27_F2_H09{n}.wav", "urdu").recording for n in (5, 6, 7, 8)]
    assert pairs[0] == pairs[1] != pairs[2] == pairs[3]
    # Numbers are counted per emotion and speaker.
    assert parse("SM27_F2_S095.wav", "urdu").recording != pairs[0]
    assert parse("SM26_F2_H095.wav", "urdu").recording != pairs[0]


def test_old_copies_of_crema_d_have_one_x() -> None:
    old, new = (parse(f"1040_ITH_SAD_{x}.wav", "crema-d") for x in ("X", "XX"))
    assert (old.emotion, old.intensity, old.speaker) == ("sad", "", "crema-d:1040")
    assert {**asdict(old), "path": new.path} == asdict(new)


@pytest.mark.parametrize(
    ("name", "emotion"),
    [
        ("DC_a01.wav", "angry"), ("DC_sa01.wav", "sad"), ("DC_su01.wav", "surprised"),
        ("AudioData/DC/a01.wav", "angry"), ("AudioData/DC/sa01.wav", "sad"),
        ("audiodata/dc/SU01.WAV", "surprised"),
    ],
)  # fmt: skip
def test_savee_reads_two_letter_codes_first_in_both_layouts(name: str, emotion: str) -> None:
    clip = parse(name, "savee")
    assert (clip.emotion, clip.speaker, clip.gender) == (emotion, "savee:DC", "male")


def test_savee_files_without_a_speaker_are_nobodys() -> None:
    assert recognise(Path("somebody/a01.wav")) is None


@pytest.mark.parametrize(
    ("corpus", "name", "message"),
    [
        ("ravdess", "03-01-09-01-01-01-01.wav", "no emotion code '09'; it has 01 neutral"),
        ("ravdess", "03-01-03-03-01-01-01.wav", "no intensity code '03'; it has 01 normal"),
        ("tess", "YAF_back_bored.wav", "no emotion code 'BORED'"),
        ("urdu", "SM1_F1_D001.wav", "no emotion code 'D'; it has A angry"),
        ("crema-d", "1001_DFA_SUR_XX.wav", "no emotion code 'SUR'"),
        ("crema-d", "1001_DFA_ANG_ZZ.wav", "no intensity code 'ZZ'; .* XX unspecified"),
        ("emo-db", "03a01Xa.wav", "no emotion code 'X'; it has W angry"),
        ("savee", "KL_z03.wav", "no emotion code 'Z'"),
    ],
)
def test_a_code_that_the_corpus_does_not_have_is_an_error(
    corpus: str, name: str, message: str
) -> None:
    with pytest.raises(CorpusError, match=message) as caught:
        CORPORA[corpus].parse(Path(name))
    assert str(caught.value).startswith(name)
    assert recognise(Path(name)) is None


# --- the corpora's own lists -----------------------------------------------------------------


def test_all_official_crema_d_names_parse(shared: Path) -> None:
    names = (shared / "corpora" / "cremad" / "filenames.txt").read_text().split()
    clips = [parse(name, "crema-d") for name in names]
    assert len(clips) == 7442
    assert Counter(clip.emotion for clip in clips) == {
        "angry": 1271, "disgust": 1271, "fearful": 1271, "happy": 1271, "sad": 1271,
        "neutral": 1087,
    }  # fmt: skip
    assert {clip.intensity for clip in clips if clip.emotion == "neutral"} == {""}
    assert Counter(clip.intensity for clip in clips) == {
        "low": 455, "medium": 455, "high": 455, "": 6077
    }  # fmt: skip
    genders = {clip.speaker: clip.gender for clip in clips}
    assert set(genders) == {f"crema-d:{number}" for number in range(1001, 1092)}
    assert Counter(genders.values()) == {"female": 43, "male": 48}
    assert len({clip.text_id for clip in clips}) == 12


EMOBOX = {  # file: corpus, clips, what the benchmark calls each emotion ("boredem" is its word)
    "ravdess": ("ravdess", 1440, {
        "Neutral": "neutral", "Calm": "calm", "Happy": "happy", "Sad": "sad", "Angry": "angry",
        "Fearful": "fearful", "Disgust": "disgust", "Surprised": "surprised"}),
    "tess": ("tess", 2800, {
        "angry": "angry", "disgust": "disgust", "fear": "fearful", "happy": "happy",
        "neutral": "neutral", "ps": "surprised", "sad": "sad"}),
    "urdu": ("urdu", 400, {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}),
    "emodb": ("emo-db", 535, {
        "anger": "angry", "boredem": "boredom", "disgust": "disgust", "fear": "fearful",
        "happy": "happy", "neutral": "neutral", "sad": "sad"}),
    "cremad": ("crema-d", 7442, {
        "ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral",
        "SAD": "sad"}),
}  # fmt: skip


@pytest.mark.parametrize("file", EMOBOX)
def test_labels_agree_with_emobox(shared: Path, file: str) -> None:
    corpus, n_clips, words = EMOBOX[file]
    with (shared / "corpora" / "emobox" / f"{file}.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == n_clips
    assert {row["label"] for row in rows} == set(words)
    for row in rows:
        found = recognise(Path(f"{row['file']}.wav"))
        assert found is not None, row["file"]
        assert (found.corpus, found.emotion) == (corpus, words[row["label"]]), row["file"]


def test_emo_db_has_five_women_and_five_men(shared: Path) -> None:
    with (shared / "corpora" / "emobox" / "emodb.csv").open(encoding="utf-8") as stream:
        clips = [parse(f"{row['file']}.wav", "emo-db") for row in csv.DictReader(stream)]
    genders = {clip.speaker: clip.gender for clip in clips}
    assert Counter(genders.values()) == {"female": 5, "male": 5}
    assert genders["emo-db:03"] == "male"
    assert genders["emo-db:08"] == "female"


def test_every_urdu_recording_is_two_halves_of_2_and_3_seconds(shared: Path) -> None:
    halves: dict[str, list[float]] = {}
    with (shared / "corpora" / "emobox" / "urdu.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            recording = parse(f"{row['file']}.wav", "urdu").recording
            halves.setdefault(recording, []).append(float(row["seconds"]))
    assert len(halves) == 200
    assert all(len(pair) == 2 for pair in halves.values())
    # One clip of the 400 is a second shorter than the others.
    usual = [pair for pair in halves.values() if sorted(map(round, pair)) == [2, 3]]
    assert len(usual) == 199


# --- names of any kind -----------------------------------------------------------------------

_NAMES = st.one_of(
    st.text(max_size=60),
    *(
        st.from_regex(rule.pattern, fullmatch=True).map(lambda stem: f"{stem}.wav")
        for rule in CORPORA.values()
    ),
    st.tuples(st.sampled_from(sorted(EXAMPLES.values())), st.integers(0, 40), st.characters()).map(
        lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + 1 :]
    ),
)


@settings(database=None, deadline=None, derandomize=True, max_examples=500)
@given(_NAMES)
def test_no_file_name_makes_recognise_raise(name: str) -> None:
    found = recognise(Path(name))
    if found is not None:
        assert found.corpus in CORPORA
        assert found.emotion in EMOTIONS
        assert found.gender in ("female", "male") or found.corpus == "nemo"
        assert found.speaker.isascii()


@pytest.mark.parametrize("number", ["1" * 5000, "٣", "²"])
def test_numbers_that_no_corpus_writes_are_not_read(number: str) -> None:
    assert recognise(Path(f"SM1_F1_A{number}.wav")) is None
