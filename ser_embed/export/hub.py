"""A trained run as a folder that transformers loads and the Hugging Face hub shows.

No head of ours is one of transformers' own classes (their audio classifiers take the mean over
time of a linear projection, and no calibration), so the folder brings its code: the modules that
training used, as they are. `transformers.pipeline("audio-classification", FOLDER,
trust_remote_code=True)` then gives the probabilities of `python -m ser_embed.predict`.
"""

import ast
import inspect
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import numpy as np
import torch
from safetensors.torch import save_file

from ser_embed import errors
from ser_embed.audio import AudioFile, Clip
from ser_embed.bundled import BUNDLED_HEADS, HEADS_LICENCE
from ser_embed.encoders import Graph
from ser_embed.errors import ExportError, HeadError
from ser_embed.export import hub_model
from ser_embed.export.facts import facts_of
from ser_embed.export.hub_model import (
    SerEmbedConfig,
    SerEmbedFeatureExtractor,
    SerEmbedForAudioClassification,
)
from ser_embed.export.parity import require_equal
from ser_embed.heads import HEADS, assemble
from ser_embed.predict import Classifier
from ser_embed.reports import Report
from ser_embed.templates import render

__all__ = ["write_folder"]

TEMPLATE = Path(__file__).with_name("card.md.j2")
WhisperStates = sys.modules[Graph.__module__].WhisperStates  # which the graph imports

MODULE = "modeling_ser_embed"  # of the classes that transformers is to load

CODE: dict[str, ModuleType] = {
    MODULE: hub_model, "errors": errors,
    **{
        thing.__module__.rpartition(".")[2]: sys.modules[thing.__module__]
        for thing in (Graph, Graph.mask_padding, WhisperStates, assemble, Clip)
    },
}  # fmt: skip
"""The modules that go into a folder, by their name there."""


# --- the folder ------------------------------------------------------------------------------


def _config(classifier: Classifier, network: Graph) -> SerEmbedConfig:
    own = network.encoder_config
    if own is None:
        raise ExportError(
            f"{classifier.settings.encoder}: not one of transformers' models, so there is no "
            "folder for transformers; write an ONNX file, --out F.onnx"
        )
    head = classifier.card["head"]
    encoder = {**own.to_diff_dict(), "model_type": own.model_type}
    encoder.pop("_name_or_path", None)
    return SerEmbedConfig(
        encoder=encoder,
        features=facts_of(classifier)["features"],
        scales_input=network.scales_input,
        head={"class": HEADS[head["name"]].build, "shape": head["shape"],
              "pooled": head["pooled"], "members": head["members"]},
        temperatures=network.temperatures,
        id2label=dict(enumerate(classifier.classes)),
        label2id={name: number for number, name in enumerate(classifier.classes)},
        architectures=["SerEmbedForAudioClassification"],
        auto_map={"AutoConfig": f"{MODULE}.SerEmbedConfig",
                  "AutoModelForAudioClassification": f"{MODULE}.SerEmbedForAudioClassification"},
    )  # fmt: skip


def write_folder(
    classifier: Classifier, network: Graph, folder: Path, clips: Sequence[Path]
) -> dict[str, Any]:
    """Write a folder for transformers: weights, configuration, code and model card.

    It appears only whole, and after what stands in it was loaded and compared.

    Args:
        classifier: The classifier.
        network: Its graph, on the CPU.
        folder: Where to; it may exist, but empty.
        clips: Files that both are compared on.

    Returns:
        `folder`, `clips`, `largest_difference`, `tolerance`, and the command to `upload` it.

    Raises:
        ExportError: The folder holds something, the encoder isn't one of transformers', or the
            folder says something else than the classifier.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder}: holds something already; name another folder, or delete it")
    config, settings = _config(classifier, network), classifier.settings
    name = folder.resolve().name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as temporary:
        new = Path(temporary) / "new"
        config.save_pretrained(new)
        SerEmbedFeatureExtractor(
            seconds=settings.seconds, fill=settings.fill, trim=settings.trim, seed=settings.seed,
            auto_map={"AutoFeatureExtractor": f"{MODULE}.SerEmbedFeatureExtractor"},
        ).save_pretrained(new)  # fmt: skip
        state = {f"graph.{k}": v.contiguous() for k, v in network.state_dict().items()}
        save_file(state, new / "model.safetensors", metadata={"format": "pt"})
        for file, module in CODE.items():
            (new / f"{file}.py").write_text(_flat(inspect.getsource(module)), encoding="utf-8")
        (new / "README.md").write_text(_model_card(classifier, name), encoding="utf-8")
        check = require_equal(folder, _differences(classifier, new, clips))
        if folder.exists():
            folder.rmdir()
        new.replace(folder)
    return {
        "folder": str(folder), "clips": len(clips), **check,
        "upload": shlex.join(["hf", "upload", f"YOUR_NAME/{name}", str(folder)]),
    }  # fmt: skip


def _flat(source: str) -> str:
    """Return a module's source with its imports from this package as imports from its own folder.

    transformers copies the files that such imports name, and those alone.
    """
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        if not (isinstance(node, ast.ImportFrom) and str(node.module).startswith("ser_embed")):
            continue
        homes = {a.name: f for a in node.names for f, m in CODE.items() if a.name in m.__all__}
        lines[node.lineno - 1 : node.end_lineno] = [
            f"from .{home} import {name}" for name, home in homes.items()
        ]
    return "\n".join(lines) + "\n"


def _differences(classifier: Classifier, folder: Path, clips: Sequence[Path]) -> list[float]:
    """Load what was written and compare it with the classifier on samples."""
    extractor = SerEmbedFeatureExtractor.from_pretrained(folder)
    model: Any = SerEmbedForAudioClassification.from_pretrained(folder).eval()
    differences = []
    for path in clips:
        samples = AudioFile(path).read().samples
        wanted = list(classifier.classify(samples).probabilities.values())
        inputs = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        with torch.inference_mode():
            found = model(**inputs).logits.softmax(-1)[0].numpy()
        differences.append(float(np.abs(found - wanted).max()))
    return differences


# --- the card --------------------------------------------------------------------------------


def _front_matter(classifier: Classifier, name: str, report: Report | None) -> str:
    corpora = ", ".join(classifier.card["corpora"])
    data: dict[str, Any] = {"license": "other", "license_name": "see-the-card"}
    if classifier.run.parent == BUNDLED_HEADS:
        data = {"license": HEADS_LICENCE.lower().replace(" ", "-")}
    if report:
        scores = {"UAR (macro recall)": ("recall", report.uar), "WA": ("accuracy", report.wa)}
        data["model_name"] = name
        data["eval_results"] = [
            huggingface_hub.EvalResult(
                task_type="audio-classification", dataset_type=corpora, dataset_name=corpora,
                metric_type=kind, metric_name=metric, metric_value=round(value, 4),
            )
            for metric, (kind, value) in scores.items()
        ]  # fmt: skip
    return huggingface_hub.ModelCardData(
        library_name="transformers", pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "ser_embed"], **data,
    ).to_yaml()  # fmt: skip


def _model_card(classifier: Classifier, name: str) -> str:
    """Return the README.md of a folder: what it is, how it scored, what it may be used for."""
    report = None
    with suppress(HeadError):  # no report is there, or none that can be read
        report = Report.load(classifier.run)
    return render(
        TEMPLATE,
        front_matter=_front_matter(classifier, name, report).strip(),
        name=name,
        classifier=classifier,
        facts=facts_of(classifier),
        card=classifier.card,
        report=report,
        versions={name: version(name) for name in ("torch", "transformers")},
    )  # fmt: skip
