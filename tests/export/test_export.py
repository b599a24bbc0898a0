"""Exports against the classifier they are made of: ONNX Runtime, and transformers elsewhere."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import huggingface_hub
import numpy as np
import pytest
import soundfile
import torch
import transformers
from conftest import tiny_whisper_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ser_embed import load_audio
from ser_embed.audio import SAMPLE_RATE, Clip, FillRule, cutting
from ser_embed.bundled import BUNDLED_HEADS, DEMO_CORPUS
from ser_embed.corpora.labels import SCHEMES
from ser_embed.corpora.listing import read_demo
from ser_embed.encoders.graph import Graph
from ser_embed.errors import ExportError
from ser_embed.export import __main__ as export
from ser_embed.export import exporting, hub
from ser_embed.export.exporting import export_onnx, export_run, graph_of
from ser_embed.export.hub_model import SerEmbedFeatureExtractor
from ser_embed.export.onnxfile import OnnxClassifier, write_onnx
from ser_embed.export.parity import TOLERANCE, waveform_of
from ser_embed.extract import ExtractConfig, extract, spread
from ser_embed.heads.checkpoint import calibrated, read_card, sealed
from ser_embed.heads.kinds import HEADS
from ser_embed.predict.classifier import Classifier
from ser_embed.train import training as train

onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")
pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")

# torch's own remark on the mask that transformers gives WavLM's attention
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")

Ran = tuple[int, dict[str, Any], str]
Run = Callable[..., subprocess.CompletedProcess[str]]

CLIPS = sorted(DEMO_CORPUS.rglob("*.ogg"))
FEW = CLIPS[3::97]

GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2-group": ("wav2vec2", GROUP), "wav2vec2-layer": ("wav2vec2", LAYER),
    "hubert-group": ("hubert", GROUP), "wavlm-layer": ("wavlm", LAYER),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """An encoder, features of it, and a head on them."""

    family: str
    head: str
    options: dict[str, Any] = field(default_factory=dict)
    do_normalize: bool = True
    ensemble: int = 1


CASES = {
    "the paper's": Case("wav2vec2-group", "conv",
                        {"layer": "logits", "norm": "frame", "fill": "sample"}),
    "temporal": Case("wav2vec2-layer", "temporal", {"layer": 2}, ensemble=2),
    "mlp": Case("wav2vec2-group", "mlp",
                {"layer": 1, "norm": "clip", "fill": "repeat", "dtype": "float32"},
                do_normalize=False),
    "layers, frames": Case("hubert-group", "layers",
                           {"layer": "all", "norm": "frame", "fill": "zero", "trim": False}),
    "layers, pooled": Case("wav2vec2-layer", "layers", {"layer": "all", "pool": "mean"}),
    "stats, whole clips": Case("wavlm-layer", "stats", {"layer": 2, "seconds": 0.0}),
    "stats, pooled": Case("wavlm-layer", "stats",
                          {"layer": "all", "pool": "stats", "norm": "clip"}),
    "log-mel": Case("log-mel", "cnn"),
    "whisper": Case("whisper", "stats", {"layer": "all", "pool": "stats"}),
    "whisper, 30 s": Case("whisper", "temporal", {"layer": 2, "context": "30s"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that trains a case's head on a few demo clips, once."""
    base = tmp_path_factory.mktemp("runs")

    def _encoder(case: Case) -> str | Path:
        if case.family == "log-mel":
            return case.family
        folder = base / f"{case.family}-{case.do_normalize}"
        if case.family == "whisper":
            return folder if folder.exists() else tiny_whisper_checkpoint(folder)
        if not folder.exists():
            model_type, norms = FAMILIES[case.family]
            config = transformers.AutoConfig.for_model(
                model_type, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
                intermediate_size=48, conv_dim=(16,) * 7, num_conv_pos_embeddings=16,
                num_conv_pos_embedding_groups=4, vocab_size=32, initializer_range=0.1, **norms,
            )  # fmt: skip
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                transformers.AutoModelForCTC.from_config(config).save_pretrained(folder)
            extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=case.do_normalize)
            extractor.save_pretrained(folder)
        return folder

    def _run(name: str) -> Path:
        case, folder = CASES[name], base / "runs" / name.replace(" ", "-")
        if not folder.exists():
            features = extract(ExtractConfig(
                corpus="demo", limit=32, encoder=str(_encoder(case)), backend="torch", workers=0,
                features_dir=base / "features", quiet=True, **case.options,
            )).result["store"]  # fmt: skip
            train.train(train.TrainConfig(
                (Path(features),), head=case.head, ensemble=case.ensemble, epochs=1,
                split="random", runs_dir=base / "runs", name=folder.name, json=True, quiet=True,
            ))  # fmt: skip
        return folder

    return _run


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The bundled head in both precisions, measured on 48 demo clips: the result and the file."""
    out = tmp_path_factory.mktemp("bundled") / "sentiment3.onnx"
    config = export.ExportConfig(
        Path("sentiment3"), out=out, int8=True, corpus="demo", limit=24, quiet=True
    )
    outcome = export_run(config)
    assert outcome.status == 0
    return outcome.result, out


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command in this process: exit status, JSON object, standard error."""

    def _run(*args: object) -> Ran:
        capsys.readouterr()
        status = export.main([*map(str, args), "--json", "--quiet"])
        printed = capsys.readouterr()
        lines = printed.out.splitlines()
        return status, json.loads(lines[-1]) if lines else {}, printed.err

    return _run


def reference(classifier: Classifier, waveform: np.ndarray) -> np.ndarray:
    """Probabilities (C,) of a waveform by the numpy path that predictions take."""
    chosen = classifier.settings
    features, _ = classifier.encoder.features([waveform], chosen.norm, chosen.pool)[0]
    stored = torch.from_numpy(features.astype(chosen.dtype).astype(np.float32))[None]
    frames = torch.tensor([classifier.encoder.n_frames(len(waveform))])
    with torch.inference_mode():
        each = [
            calibrated(h(stored, frames).numpy(), c["temperature"]) for h, c in classifier.heads
        ]
    return np.mean(each, axis=0)[0]


def predicted(classifier: Classifier, path: Path) -> np.ndarray:
    return np.array(list(classifier.classify_file(path).probabilities.values()))


# --- every kind of run -----------------------------------------------------------------------


def test_the_cases_have_every_head_norm_pool_and_fill() -> None:
    chosen = [
        {"norm": "none", "pool": "none", "fill": "none"} | case.options for case in CASES.values()
    ]
    assert {case.head for case in CASES.values()} == set(HEADS)
    assert {one["norm"] for one in chosen} == {"none", "frame", "clip"}
    assert {one["pool"] for one in chosen} == {"none", "mean", "stats"}
    assert {one["fill"] for one in chosen} == {"none", "sample", "repeat", "zero"}


@pytest.mark.parametrize("name", CASES)
def test_the_file_says_what_the_classifier_says(
    name: str, run_of: Callable[[str], Path], tmp_path: Path
) -> None:
    classifier = Classifier.load(run_of(name))
    output = export_onnx(classifier, tmp_path / "f.onnx", FEW)
    assert output["check"]["largest_difference"] <= TOLERANCE
    assert [path.name for path in tmp_path.iterdir()] == ["f.onnx"]
    run = OnnxClassifier(tmp_path / "f.onnx")
    for path in FEW:
        given = run(waveform_of(classifier, path))
        np.testing.assert_allclose(given, predicted(classifier, path)[None], atol=TOLERANCE)
    rng = np.random.default_rng(0)
    for seconds in (1, 3, 5):  # whatever the length that was traced
        batch = rng.normal(0.01, 0.1, (4, seconds * 16_000)).astype(np.float32)
        batch *= np.array([[1], [0.1], [2], [0.5]], dtype=np.float32)
        wanted = np.stack([reference(classifier, waveform) for waveform in batch])
        np.testing.assert_allclose(run(batch), wanted, atol=TOLERANCE)
        np.testing.assert_allclose(run(batch[1:2]), wanted[1:2], atol=TOLERANCE)
        np.testing.assert_allclose(wanted.sum(1), 1, atol=1e-5)


def test_features_go_through_the_stored_type(run_of: Callable[[str], Path]) -> None:
    waveform = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    for name, rounds in (("temporal", True), ("mlp", False)):
        graph = graph_of(Classifier.load(run_of(name)))
        with torch.inference_mode():
            features = graph.features(waveform)
        assert torch.equal(features, features.half().float()) == rounds


def test_a_run_in_bf16_is_exported_in_fp32(
    run_of: Callable[[str], Path], command: Callable[..., Ran], tmp_path: Path
) -> None:
    """Its card is changed here; the arithmetic that features were made in is in no weight."""
    folder = run_of("temporal")
    card = read_card(folder)
    card["features"]["precision"] = "bf16"
    copied = Path(shutil.copytree(folder, tmp_path / "run"))
    (copied / "card.json").write_text(sealed(card))
    assert command(copied, "--out", tmp_path / "f.onnx", "--check", *FEW)[0] == 0
    exact = Classifier.load(folder)
    run = OnnxClassifier(tmp_path / "f.onnx")
    for path in FEW:
        given = run(waveform_of(exact, path))[0]
        np.testing.assert_allclose(given, predicted(exact, path), atol=TOLERANCE)


# --- heads that ship -------------------------------------------------------------------------


def test_the_bundled_head_as_a_file(sentiment: tuple[dict[str, Any], Path]) -> None:
    output, out = sentiment
    assert output["run"] == str(BUNDLED_HEADS / "sentiment3")
    assert output["onnx"] == str(out)
    assert output["check"]["clips"] == 12
    assert output["check"]["largest_difference"] <= TOLERANCE
    # The encoder once, not once for each of the five heads; its half precision kept.
    assert output["bytes"] == out.stat().st_size < 17e6
    small = out.with_name("sentiment3.int8.onnx")
    assert output["int8"]["onnx"] == str(small)
    assert output["int8"]["bytes"] == small.stat().st_size < 9e6
    assert sorted(path.name for path in out.parent.iterdir()) == [small.name, out.name]


def test_both_bundled_heads_on_clips(
    sentiment: tuple[dict[str, Any], Path], command: Callable[..., Ran], tmp_path: Path
) -> None:
    assert command("emotion8", "--out", tmp_path / "emotion8.onnx")[0] == 0
    for name, out in (("sentiment3", sentiment[1]), ("emotion8", tmp_path / "emotion8.onnx")):
        classifier = Classifier.load(Path(name))
        run = OnnxClassifier(out)
        for path in CLIPS[::41]:
            given = run(waveform_of(classifier, path))[0]
            np.testing.assert_allclose(given, predicted(classifier, path), atol=TOLERANCE)


def test_any_runtime_can_tell_what_goes_in_and_comes_out(
    sentiment: tuple[dict[str, Any], Path],
) -> None:
    for name in ("sentiment3.onnx", "sentiment3.int8.onnx"):
        model = onnx.load(sentiment[1].with_name(name))
        onnx.checker.check_model(model, full_check=True)
        ((waveform, given), (probabilities, found)) = [
            (one.name, [d.dim_param or d.dim_value for d in one.type.tensor_type.shape.dim])
            for one in (*model.graph.input, *model.graph.output)
        ]
        assert (waveform, given) == ("waveform", ["batch", "samples"])
        assert (probabilities, found) == ("probabilities", ["batch", 3])


def test_the_file_says_what_it_is(sentiment: tuple[dict[str, Any], Path]) -> None:
    output, out = sentiment
    facts = OnnxClassifier(out).metadata
    card = Classifier.load(Path("sentiment3")).card
    assert json.loads(facts["labels"]) == ["positive", "neutral", "negative"]
    assert (facts["sample_rate"], facts["window_seconds"]) == ("16000", "3.0")
    assert (facts["trim"], facts["fill"], facts["seed"]) == ("true", "none", "0")
    assert (facts["encoder"], facts["encoder_weights_sha256"]) == (
        "mini", card["features"]["weights"])  # fmt: skip
    assert json.loads(facts["head"]) == {"name": "stats", "members": 1, "averaged": 5}
    assert json.loads(facts["temperature"])[0] == card["temperature"]
    assert json.loads(facts["corpora"]) == {"ravdess": 1440, "tess": 2800, "urdu": 400}
    assert facts["licence"].startswith("CC BY-NC-SA 4.0")
    assert facts["licence"][:15] in (BUNDLED_HEADS / "README.md").read_text(encoding="utf-8")
    assert json.loads(facts["sources"])["tess"] == "CC BY-NC-ND 4.0"
    assert "AI Act" in facts["use"]
    assert "one by one, never padded" in facts["batches"]
    # The sentence and the code that it describes.
    assert f"{cutting._TRIM_DB:.0f} dB below the loudest 20 ms" in facts["preprocessing"]
    assert f"but for {cutting._TRIM_MARGIN * 20} ms" in facts["preprocessing"]
    assert f"and {cutting.LEAD_SECONDS:.0f} s" in facts["preprocessing"]
    assert f"under {cutting._CLICK_FRAMES * 20} ms" in facts["preprocessing"]
    assert f"{cutting._CLICK_DB:.0f} dB above the loudest 0.3 s" in facts["preprocessing"]
    assert cutting._SOUND_FRAMES * cutting.FRAME_SAMPLES == 0.3 * SAMPLE_RATE
    assert cutting.FRAME_SAMPLES == 0.02 * SAMPLE_RATE
    assert json.loads(facts["check"]) == output["check"]
    assert json.loads(facts["measured"]) == output["measured"]
    eight = OnnxClassifier(out.with_name("sentiment3.int8.onnx")).metadata
    assert (facts["precision"], eight["precision"]) == ("fp32", "int8")
    against = json.loads(eight["against_fp32"])
    assert against["largest_difference"] == output["int8"]["largest_difference"]


def test_what_eight_bits_cost_is_measured(sentiment: tuple[dict[str, Any], Path]) -> None:
    output, out = sentiment
    classifier = Classifier.load(Path("sentiment3"))
    runs = {"fp32": OnnxClassifier(out),
            "int8": OnnxClassifier(out.with_name("sentiment3.int8.onnx"))}  # fmt: skip
    measured = output["measured"]
    assert (measured["corpus"], measured["clips"], measured["failed"]) == ("demo", 24, 0)
    assert not measured["trained_on"]
    clips = spread(read_demo().utterances, 24)
    truth = np.array([SCHEMES["sentiment3"].mapping[clip.emotion] for clip in clips])
    waveforms = [waveform_of(classifier, clip.path) for clip in clips]
    for name, run in runs.items():
        answers = np.array([classifier.classes[int(run(w).argmax())] for w in waveforms])
        assert measured[name]["wa"] == pytest.approx((answers == truth).mean())
        recalls = [(answers == truth)[truth == label].mean() for label in classifier.classes]
        assert measured[name]["uar"] == pytest.approx(np.mean(recalls))
    # It really is another file, and not a bad one.
    assert 1e-5 < output["int8"]["largest_difference"] < 0.05
    assert output["int8"]["label_agreement"] >= 11 / 12
    pair = [np.concatenate([run(w) for w in waveforms[::4]]) for run in runs.values()]
    assert np.abs(pair[0] - pair[1]).max() < 0.05


def test_real_speech(
    sentiment: tuple[dict[str, Any], Path],
    command: Callable[..., Ran],
    shared: Path,
    tmp_path: Path,
) -> None:
    root = shared / "corpora/ravdess"
    status, output, _ = command(
        "sentiment3", "--out", tmp_path / "f.onnx", "--int8", "--measure", root,
        "--corpus", "ravdess", "--limit", 24, "--check", *sorted(root.rglob("*.flac"))[::300],
    )  # fmt: skip
    assert status == 0
    assert output["check"]["clips"] == 5
    measured = output["measured"]
    assert measured["trained_on"]
    assert measured["fp32"]["uar"] > 0.6
    assert measured["int8"]["uar"] == pytest.approx(measured["fp32"]["uar"], abs=0.1)


# --- what goes wrong -------------------------------------------------------------------------


def test_a_file_that_says_something_else_is_not_written(
    run_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is spoilt here: a temperature that isn't the card's."""
    classifier = Classifier.load(run_of("mlp"))

    factor = 1.1

    def spoilt(of: Classifier) -> Graph:
        graph = graph_of(of)
        graph.temperatures[0] *= factor
        return graph

    monkeypatch.setattr(exporting, "graph_of", spoilt)
    out = tmp_path / "f.onnx"
    for before in (None, b"an earlier export"):
        if before:
            out.write_bytes(before)
            factor = np.nan
        with pytest.raises(ExportError, match=r"f\.onnx: not written: .* more than 1e-04"):
            export_onnx(classifier, out, FEW)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == ([before] if before else [])


def test_a_classifier_by_another_engine_is_refused(
    run_of: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="needs the extra 'openvino'")
    classifier = Classifier.load(run_of("mlp"), backend="openvino")
    with pytest.raises(ExportError, match="load it by backend 'torch', not 'openvino'"):
        export_onnx(classifier, tmp_path / "f.onnx", FEW)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "say what to write: --out F.onnx, --to-hub FOLDER, or both"),
        (("--to-hub", "x", "--int8"), "name it with --out"),
        (("--to-hub", "x", "--corpus", "demo"), "name it with --out"),
        (("--out", "x.onnx", "--corpus", "ravdess"), "give a folder and --corpus NAME"),
        (("--out", "."), ".: a folder; name a file"),
        (("--out", "x.onnx", "--check", "nowhere.wav"), "nowhere.wav: No such file"),
        (("--out", "x.onnx", "--check", "empty"), "empty: no audio file in it"),
    ],
)
def test_what_cannot_be_done(
    args: tuple[str, ...], said: str, command: Callable[..., Ran], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    status, output, error = command("sentiment3", *args)
    assert status == 1
    assert said in output["error"]
    assert said in error
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_clip_that_cannot_be_measured_on_is_named(
    run_of: Callable[[str], Path], command: Callable[..., Ran], tmp_path: Path
) -> None:
    rows = ["path,emotion", *(f"{path},happy" for path in FEW), "gone.wav,sad"]
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    args = (run_of("mlp"), "--out", tmp_path / "f.onnx", "--check", FEW[0], "--csv")
    status, output, error = command(*args, tmp_path / "mine.csv")
    assert status == 3, output
    assert (output["measured"]["clips"], output["measured"]["failed"]) == (len(FEW), 1)
    assert "failed: " in error
    assert "gone.wav: No such file" in error
    (tmp_path / "none.csv").write_text("path,emotion\ngone.wav,sad")
    (tmp_path / "f.onnx").unlink()
    status, output, _ = command(*args, tmp_path / "none.csv")
    assert status == 1
    assert "none of its clips can be measured on" in output["error"]
    assert not (tmp_path / "f.onnx").exists()


def test_weights_that_no_onnx_file_can_hold(tmp_path: Path) -> None:
    network = torch.nn.Linear(30_000, 30_000, device="meta")
    with pytest.raises(ExportError, match=r"3\.6 GB of weights, and an ONNX file ends at 2 GB"):
        write_onnx(network, 16_000, tmp_path / "f.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_extra(
    package: str, command: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # so an import of it fails
    status, _, error = command("sentiment3", "--out", tmp_path / "f.onnx")
    assert status == 1
    assert f"{package} is not installed: pip install 'ser_embed[onnx]'" in error
    assert not list(tmp_path.iterdir())
    assert command("sentiment3", "--to-hub", tmp_path / "f", "--check", FEW[0])[0] == 0


# --- a folder for transformers ---------------------------------------------------------------

IN_TRANSFORMERS = """
import json, sys
from pathlib import Path
import soundfile, transformers

folder = Path(sys.argv[1])
clips = [soundfile.read(path, dtype="float32")[0] for path in sorted(folder.glob("*.wav"))]
output = {}
for model in sorted(folder.glob("model*")):
    classify = transformers.pipeline("audio-classification", str(model), trust_remote_code=True)
    alone, batch = [classify(clip) for clip in clips], classify(clips, batch_size=len(clips))
    output[model.name] = [alone, batch]
assert "ser_embed" not in sys.modules
print(json.dumps(output))
"""


def test_transformers_loads_folders_elsewhere_and_says_the_same(
    run_of: Callable[[str], Path], command: Callable[..., Ran], run: Run, tmp_path: Path
) -> None:
    sources = {"model-1": Path("sentiment3")}
    names = ("the paper's", "temporal", "layers, frames", "whisper", "whisper, 30 s")
    for number, name in enumerate(names, start=2):
        sources[f"model-{number}"] = run_of(name)
    for name, source in sources.items():
        status, output, _ = command(source, "--to-hub", tmp_path / name, "--check", *FEW)
        assert status == 0
        assert output["hub"]["largest_difference"] <= TOLERANCE
        assert output["hub"]["upload"] == f"hf upload YOUR_NAME/{name} {tmp_path / name}"
    assert {path.name for path in tmp_path.iterdir()} == set(sources)
    # Clips of several lengths, so that a batch of them is padded.
    paths = [tmp_path / f"{number}.wav" for number in range(len(FEW))]
    for number, path in enumerate(paths):
        samples = load_audio(FEW[number])[: 16_000 + 9_000 * number]
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
    modules = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = run("-c", IN_TRANSFORMERS, tmp_path, cwd=tmp_path, env={"PYTHONPATH": "", **modules})
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    for name, source in sources.items():
        classifier = Classifier.load(source)
        for path, *both in zip(paths, *answers[name], strict=True):
            wanted = classifier.classify(load_audio(path)).probabilities
            for rows in both:
                given = {row["label"]: row["score"] for row in rows}
                assert given == pytest.approx(wanted, abs=1e-5)


def test_the_folder_takes_no_other_rate() -> None:
    extractor = SerEmbedFeatureExtractor()
    assert extractor(np.ones(500), sampling_rate=16_000)["input_values"][0].shape == (500,)
    with pytest.raises(ValueError, match="samples at 8000 Hz; resample them to 16,000 Hz"):
        extractor(np.ones(500), sampling_rate=8000)


def test_the_folder_tells_nothing_of_this_machine_and_what_the_model_is(
    run_of: Callable[[str], Path], command: Callable[..., Ran], tmp_path: Path, project: Path
) -> None:
    for source in (run_of("temporal"), Path("emotion8")):
        folder = tmp_path / source.name
        assert command(source, "--to-hub", folder, "--check", FEW[0])[0] == 0
        for file in folder.glob("*"):
            if file.suffix != ".safetensors":
                text = file.read_text(encoding="utf-8")
                for place in (project, Path.home(), run_of("temporal").parents[1]):
                    assert str(place) not in text
    card = huggingface_hub.ModelCard.load(tmp_path / "emotion8" / "README.md")
    assert card.data.license == "cc-by-nc-sa-4.0"
    assert (card.data.library_name, card.data.pipeline_tag) == (
        "transformers", "audio-classification")  # fmt: skip
    report = json.loads((BUNDLED_HEADS / "emotion8/report.json").read_text())
    scores = {one.metric_name: one.metric_value for one in card.data.eval_results or ()}
    assert scores["UAR (macro recall)"] == pytest.approx(report["uar"], abs=1e-4)
    assert scores["WA"] == pytest.approx(report["wa"], abs=1e-4)
    low, high = report["uar_ci"]
    assert f"UAR {report['uar']:.3f} [{low:.3f}, {high:.3f}]" in card.text
    for said in ("ravdess | 1440 |", "CC BY-NC-ND 4.0", "AI Act", "`kfold`", "trust_remote_code"):
        assert said in card.text
    mine = huggingface_hub.ModelCard.load(tmp_path / "temporal" / "README.md")
    assert mine.data.license == "other"
    assert "synthetic" in mine.text


def test_a_folder_that_cannot_be_written(
    run_of: Callable[[str], Path], command: Callable[..., Ran], tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    status, output, _ = command(run_of("mlp"), "--to-hub", tmp_path / "full", "--check", FEW[0])
    assert status == 1
    assert "full: holds something already" in output["error"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    classifier = Classifier.load(run_of("mlp"))
    graph = graph_of(classifier)
    graph.encoder = torch.nn.Identity()  # as torchaudio's: none of transformers' classes
    with pytest.raises(ExportError, match="not one of transformers' models"):
        hub.write_folder(classifier, graph, tmp_path / "new", FEW)
    spoilt = graph_of(classifier)
    spoilt.temperatures[0] *= 1.1
    with pytest.raises(ExportError, match="new: not written: "):
        hub.write_folder(classifier, spoilt, tmp_path / "new", FEW)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


# --- the example -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(project: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("onnx_numpy", project / "examples/onnx_numpy.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@given(
    samples=arrays.arrays(np.float32, st.integers(0, 8), elements=st.sampled_from(
        [0.0, 1e-4, 0.009, 0.0101, 0.5])),
    extra=st.integers(1, 400),
    seconds=st.sampled_from([0.0, 0.05, 3.0]),
    trim=st.booleans(),
    fill=st.sampled_from(get_args(FillRule)),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_the_example_prepares_clips_as_we_do(
    example: ModuleType, samples: np.ndarray, extra: int, seconds: float, trim: bool,
    fill: FillRule,
) -> None:  # fmt: skip
    """Stretches of 100 ms of different loudness, and some samples that fill no frame."""
    rng = np.random.default_rng(extra)
    loud = np.concatenate([np.repeat(samples, 1600), np.full(extra, 0.3, np.float32)])
    clip = (loud * rng.normal(0, 1, len(loud))).astype(np.float32)
    sha256 = f"{extra:064x}"
    cut = cutting.cut_clip(clip, seconds, trim)
    wanted = Clip(cut, sha256, 0.0).fit(seconds, fill, seed=7)
    facts = {"window_seconds": str(seconds), "trim": json.dumps(trim), "fill": fill, "seed": "7"}
    np.testing.assert_array_equal(example.prepare(clip, facts, sha256), wanted)


def test_the_example_looks_past_ten_seconds_of_silence_and_no_further(example: ModuleType) -> None:
    facts = {"window_seconds": "3.0", "trim": "true", "fill": "none", "seed": "0"}
    rng = np.random.default_rng(0)
    clip = 1e-5 * rng.normal(0, 1, 20 * 16_000).astype(np.float32)
    for start in (5, 9, 12.9, 14):
        spoken = clip.copy()
        spoken[int(start * 16_000) :][:32_000] += 0.1
        wanted = cutting.cut_clip(spoken, 3.0, trim=True)
        np.testing.assert_array_equal(example.prepare(spoken, facts, ""), wanted)


WATCHED = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
assert not {"torch", "ser_embed", "transformers"} & set(sys.modules)
"""


def test_the_example_runs_alone_and_says_what_predict_says(
    sentiment: tuple[dict[str, Any], Path], run: Run, tmp_path: Path, project: Path
) -> None:
    root = project.parent / "shared/corpora/ravdess"
    clips = [FEW[1], *sorted(root.rglob("*.flac"))[700:701]]
    alone = tmp_path / "alone.py"  # away from the package, which it must not need
    alone.write_text((project / "examples/onnx_numpy.py").read_text())
    classifier = Classifier.load(Path("sentiment3"))
    for clip in clips:
        done = run("-c", WATCHED, alone, sentiment[1], clip, cwd=tmp_path, env={"PYTHONPATH": ""})
        assert done.returncode == 0, done.stderr
        label, *rows = done.stdout.splitlines()
        prediction = classifier.classify_file(clip)
        assert label == prediction.label
        given = {name.strip(): float(value) for name, value in (row.split(":") for row in rows)}
        assert given == pytest.approx(prediction.probabilities, abs=TOLERANCE)
    soundfile.write(tmp_path / "fast.wav", np.zeros(4800), 48_000)
    done = run(alone, sentiment[1], tmp_path / "fast.wav")
    assert done.returncode == 1
    assert "fast.wav: 48000 Hz; resample it first" in done.stderr
