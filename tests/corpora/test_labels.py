"""Label schemes: the contract of every one, the paper's classes, and users' mapping files."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_embed.corpora.labels import EMOTIONS, SCHEMES, LabelScheme, canonical_emotion
from ser_embed.corpora.naming import CORPORA
from ser_embed.errors import LabelError

PAPER = {
    "positive": {"happy", "surprised"},
    "neutral": {"neutral", "calm"},
    "negative": {"angry", "fearful", "sad", "disgust"},
}
CREMA_D_21 = {
    f"{emotion}_{level}" for emotion in ("ANG", "DIS", "FEA", "HAP", "SAD")
    for level in ("LO", "MD", "HI", "XX")
} | {"NEU_XX"}  # fmt: skip


def split_key(key: str) -> tuple[str, str]:
    emotion, _, intensity = key.partition("/")
    return emotion, intensity


# --- the contract of every scheme ------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_is_found_by_its_name_and_has_distinct_classes(name: str) -> None:
    scheme = LabelScheme.load(name)
    assert scheme is SCHEMES[name]
    assert scheme.name == name
    assert len(set(scheme.classes)) == len(scheme.classes) >= 2
    assert all(scheme.classes)


@pytest.mark.parametrize("name", SCHEMES)
def test_every_class_is_reached_and_every_emotion_round_trips(name: str) -> None:
    scheme = SCHEMES[name]
    assert {label for label in scheme.mapping.values() if label} == set(scheme.classes)
    keys = list(scheme.mapping)
    emotions, intensities = zip(*map(split_key, keys), strict=True)
    assert set(emotions) <= set(EMOTIONS)
    for key, index in zip(keys, scheme.encode(emotions, intensities), strict=True):
        label = scheme.mapping[key]
        assert scheme.label(*split_key(key)) == label
        assert (scheme.classes[index] if index >= 0 else None) == label


@pytest.mark.parametrize("name", SCHEMES)
def test_item_10_a_scheme_leaves_out_and_counts_emotions_that_it_does_not_have(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    scheme = SCHEMES[name]
    assert scheme.label("excited") is None
    assert scheme.encode(["excited", "sad", "excited"], [""] * 3)[::2] == [-1, -1]
    assert f"{name} has no class for 'excited' (2 clips): left out" in caplog.text


@pytest.mark.parametrize("name", ["sentiment3", "emotion4", "emotion8"])
def test_schemes_of_emotions_alone_disregard_the_intensity(name: str) -> None:
    assert SCHEMES[name].label("happy", "strong") == SCHEMES[name].label("happy")


# --- the schemes by themselves ---------------------------------------------------------------


def test_sentiment3_is_the_papers() -> None:
    scheme = SCHEMES["sentiment3"]
    assert scheme.classes == ("positive", "neutral", "negative")
    for label, emotions in PAPER.items():
        assert {emotion for emotion in scheme.mapping if scheme.label(emotion) == label} == emotions


def test_emotion4_keeps_urdus_four_and_leaves_the_rest_out_by_name() -> None:
    scheme = SCHEMES["emotion4"]
    assert set(scheme.classes) == set(CORPORA["urdu"].emotions.values())
    assert {e for e in EMOTIONS if scheme.label(e) is None} == set(EMOTIONS) - set(scheme.classes)


def test_emotion8_is_ravdess() -> None:
    assert SCHEMES["emotion8"].classes == tuple(CORPORA["ravdess"].emotions.values())


def test_intensity21_has_crema_ds_21_names() -> None:
    assert len(CREMA_D_21) == 21
    assert set(SCHEMES["intensity21"].classes) == CREMA_D_21


def test_intensity21_gives_every_crema_d_file_its_own_code(shared: Path) -> None:
    names = (shared / "corpora" / "cremad" / "filenames.txt").read_text().split()
    scheme, counts = SCHEMES["intensity21"], Counter[str]()
    for name in names:
        utterance = CORPORA["crema-d"].parse(Path(name))
        assert utterance is not None
        label = scheme.label(utterance.emotion, utterance.intensity)
        assert label == Path(name).stem.split("_", 2)[2]
        counts[label] += 1
    assert set(counts) == CREMA_D_21


# --- emotions that a scheme doesn't name -----------------------------------------------------


def test_encode_lists_every_emotion_that_a_mapping_lacks_and_the_remedy(tmp_path: Path) -> None:
    scheme = LabelScheme.load(write(tmp_path / "two.csv", "emotion,label\nhappy,a\nsad,b\n"))
    emotions = ["happy", "boredom", "excited", "boredom", "sad", "boredom"]
    with pytest.raises(LabelError) as caught:
        scheme.encode(emotions, [""] * len(emotions))
    message = str(caught.value)
    assert "'two' doesn't name 'boredom' (3 clips), 'excited' (1 clips)" in message
    assert "it names happy, sad" in message
    assert "--labels FILE.csv" in message
    assert "emotion,label" in message


def test_item_10_an_intensity_without_a_class_is_left_out_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    emotions, grades = ["happy", "sad", "happy"], ["strong", "low", "strong"]
    assert SCHEMES["intensity21"].encode(emotions, grades)[::2] == [-1, -1]
    assert "'happy/strong' (2 clips)" in caplog.text


def test_item_10_emo_dbs_boredom_does_not_stop_the_default_scheme() -> None:
    emotions = list(CORPORA["emo-db"].emotions.values())
    labels = SCHEMES["sentiment3"].encode(emotions, [""] * len(emotions))
    assert [e for e, label in zip(emotions, labels, strict=True) if label < 0] == ["boredom"]


def test_item_10_own_words_are_classes_as_they_are() -> None:
    words = ["Frustration", "N", "neutral", "excited", "Excited", "Excited"]
    scheme = LabelScheme.load("own").fit(words)
    assert scheme.classes == ("Excited", "Frustration", "N", "neutral")
    assert scheme.encode(words, [""] * 6) == [1, 2, 3, 0, 0, 0]
    assert scheme.fit(["other"]) is scheme
    assert scheme.label("unheard") is None
    assert SCHEMES["emotion8"].fit(words) is SCHEMES["emotion8"]
    with pytest.raises(LabelError, match="own words are N: a classifier needs two"):
        LabelScheme.load("own").fit(["N", "n"])


def test_item_10_a_mapping_tells_n_from_neutral(tmp_path: Path) -> None:
    text = "Emotion ; LABEL\nN;nervous\nneutral;calm\nAnger;cross\n;\n"
    scheme = LabelScheme.load(write(tmp_path / "own.csv", text, "utf-16"))
    assert scheme.classes == ("nervous", "calm", "cross")
    assert [scheme.label(w) for w in ("N", "n", "neutral", "neu", "angry")] == [
        "nervous", "nervous", "calm", "calm", "cross"
    ]  # fmt: skip


def test_encode_refuses_columns_of_different_length() -> None:
    with pytest.raises(ValueError, match="shorter"):
        SCHEMES["emotion8"].encode(["happy", "sad"], [""])


@pytest.mark.parametrize(
    ("word", "emotion"),
    [
        ("Anger", "angry"), (" HAP ", "happy"), ("happiness", "happy"), ("ps", "surprised"),
        ("Pleasant Surprise", "surprised"), ("fear", "fearful"), ("NEU", "neutral"),
        ("Bored", "boredom"), ("disgusted", "disgust"), ("Very Excited", "very_excited"),
    ],
)  # fmt: skip
def test_other_words_for_an_emotion(word: str, emotion: str) -> None:
    assert canonical_emotion(word) == emotion


def test_the_vocabularys_own_words_stay() -> None:
    assert tuple(map(canonical_emotion, EMOTIONS)) == EMOTIONS


# --- mapping files ---------------------------------------------------------------------------


def write(path: Path, text: str, encoding: str = "utf-8") -> str:
    path.write_text(text, encoding=encoding)
    return str(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mood.csv", "emotion,label\nHappy,up\nANGER,up\nsad,down\nneutral,\n"),
        ("mood.CSV", "emotion,label\r\nhappiness,up\r\nangry, up \r\nsad,down\r\nneutral\r\n"),
        ("mood.csv", "note,label,emotion\nx,up,happy\ny,up,angry\nz,down,sad\n,,neutral\n"),
        ("mood.json", '{"happy": "up", "Anger": "up", "sad": "down", "neutral": null}'),
        ("mood.JSON", '{"joy": " up", "angry": "up", "sad": "down", "neutral": ""}'),
    ],
    ids=["csv", "csv-crlf", "csv-columns", "json-null", "json-empty"],
)
def test_a_mapping_file_is_a_scheme(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    scheme = LabelScheme.load(write(tmp_path / name, text, encoding))
    assert scheme == LabelScheme(
        "mood", ("up", "down"), {"happy": "up", "angry": "up", "sad": "down", "neutral": None}
    )
    assert scheme.encode(["sad", "neutral", "happy"], ["", "low", "strong"]) == [1, -1, 0]


def test_a_mapping_file_may_tell_intensities_apart(tmp_path: Path) -> None:
    text = "emotion,label\nAnger/High,alarm\nangry,fine\nhappy,fine\nsad/low,\nsad,alarm\n"
    scheme = LabelScheme.load(write(tmp_path / "alarm.csv", text))
    assert scheme.classes == ("alarm", "fine")
    assert scheme.label("angry", "high") == "alarm"
    assert scheme.label("angry", "low") == scheme.label("angry") == "fine"
    assert scheme.label("sad", "low") is None
    assert scheme.label("sad", "high") == "alarm"


def test_a_mapping_file_may_name_emotions_of_its_own(tmp_path: Path) -> None:
    text = '{"Excité": "fort", "calm": "doux"}'
    scheme = LabelScheme.load(write(tmp_path / "français.json", text))
    assert scheme.label("excité") == "fort"
    with pytest.raises(LabelError, match="'français' doesn't name 'happy'"):
        scheme.label("happy")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("one.csv", "emotion,label\nhappy,a\nsad,a\nangry,\n", "names 1 classes; .* two or more"),
        ("none.csv", "emotion,label\n", "names 0 classes"),
        ("none.json", "{}", "names 0 classes"),
        ("header.csv", "happy,a\nsad,b\n", "the header is 'happy,a'"),
        ("semicolon.csv", "emotion;label\nhappy;a\n", "names 1 classes"),
        ("empty.csv", "", "the header is"),
        ("empty.json", "", "not a mapping file"),
        ("broken.json", '{"happy": "a"', "not a mapping file"),
        ("list.json", '["happy", "sad"]', "a JSON object from emotion to label"),
        ("number.json", '{"happy": 1, "sad": 2}', "the label of 'happy' is 1, not text"),
        ("nested.json", '{"happy": ["a"], "sad": "b"}', r"the label of 'happy' is \['a'\]"),
        ("short.csv", "label,emotion\na,happy\nb\n", "the label 'b' has no emotion"),
        ("blank.csv", "emotion,label\n ,a\nsad,b\n", "the label 'a' has no emotion"),
        (
            "twice.csv",
            "emotion,label\nhappy,a\nsad,b\nHappy,b\n",
            "'Happy' has two labels, 'a' and",
        ),
        ("field.csv", f"emotion,label\n{'x' * 200_000},a\n", "field larger than field limit"),
    ],
)
def test_a_mapping_file_that_can_not_be_used_is_named(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    file = write(tmp_path / name, text)
    with pytest.raises(LabelError, match=message) as caught:
        LabelScheme.load(file)
    assert str(caught.value).startswith(file)


def test_a_mapping_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "sheet.csv"
    file.write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(LabelError, match="it is an Excel or LibreOffice workbook; save it as CSV"):
        LabelScheme.load(str(file))


@pytest.mark.parametrize("name", ["sentiment", "nowhere.csv", ""])
def test_an_unknown_scheme_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    wanted = str(tmp_path / name) if name else str(tmp_path)
    with pytest.raises(LabelError, match=", ".join(SCHEMES)) as caught:
        LabelScheme.load(wanted)
    assert repr(wanted) in str(caught.value)


@settings(database=None, deadline=None, derandomize=True, max_examples=200)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text(alphabet="abc,/\"'\n\r \0é\u2028", max_size=120).map(
            lambda text: f"emotion,label\n{text}".encode()
        ),
    ),
    ending=st.sampled_from([".csv", ".json"]),
)
def test_no_mapping_file_raises_anything_but_a_label_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, ending: str
) -> None:
    file = tmp_path_factory.getbasetemp() / f"anything{ending}"
    file.write_bytes(content)
    try:
        scheme = LabelScheme.load(str(file))
    except LabelError:
        return
    assert len(set(scheme.classes)) == len(scheme.classes) >= 2


def test_a_mapping_file_of_brackets_is_none(tmp_path: Path) -> None:
    file = tmp_path / "deep.json"
    file.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(LabelError, match="not a mapping file"):
        LabelScheme.load(str(file))
