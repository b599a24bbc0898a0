"""A trained run as one ONNX file, waveform in, probabilities out; or as a transformers folder.

The graph holds everything the classifier does after decoding: scaling to unit variance, encoder,
layers, min-max normalisation, pooling, the rounding to the stored type, all heads, their
calibration and their mean. It takes clips as
`Clip.fit` leaves them: trimming changes a clip's length and random filling draws numbers, so
both come before it. `examples/onnx_numpy.py` does them in numpy, by the file's own metadata.
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ser_embed.audio import SAMPLE_RATE, AudioFile
from ser_embed.bundled import DEMO_CORPUS
from ser_embed.command import DONE, SOME_CLIPS_FAILED, Outcome
from ser_embed.corpora import Listing, listing_of
from ser_embed.encoders import Graph, load_encoder
from ser_embed.errors import AudioError, ExportError
from ser_embed.export.facts import facts_of
from ser_embed.export.hub import write_folder
from ser_embed.export.onnxfile import (
    OnnxClassifier,
    quantise,
    require_onnx,
    set_metadata,
    store_half_precision,
    write_onnx,
)
from ser_embed.export.options import ExportConfig
from ser_embed.export.parity import (
    Runner,
    agreement,
    differences_of,
    measure_accuracy,
    require_equal,
)
from ser_embed.extract import spread
from ser_embed.predict import Classifier

__all__ = ["export_onnx", "export_run", "graph_of"]

log = logging.getLogger(__name__)

N_DEMO_CLIPS = 12  # of the demo corpus, where no clips to check on are named


# --- the graph -------------------------------------------------------------------------------


def graph_of(classifier: Classifier) -> Graph:
    """Return a copy, on the CPU, of all a classifier does after decoding, trimming and filling.

    Raises:
        ExportError: The classifier's encoder doesn't run by torch, or was fine-tuned.
    """
    encoder = classifier.encoder
    if encoder is None:
        raise ExportError(
            f"{classifier.run}: a fine-tuned run, which is no head on a frozen encoder; its folder "
            "is in transformers' format already, and optimum exports such folders"
        )
    if encoder.backend.name != "torch":
        raise ExportError(
            f"{classifier.run}: load it by backend 'torch', not {encoder.backend.name!r}"
        )
    return Graph(
        deepcopy(encoder.network).cpu(),
        [deepcopy(head) for head, _ in classifier.heads],
        [card["temperature"] for _, card in classifier.heads],
        encoder.do_normalize,
        asdict(classifier.settings),
    ).eval()


def _loaded(run: Path | None, runs_dir: Path) -> Classifier:
    """Load a run with its encoder in float32, which is what an exported file computes in."""
    classifier = Classifier.load(run, runs_dir)
    settings = classifier.settings
    if settings.precision == "fp32":
        return classifier
    log.info("%s: trained on %s features; exported in fp32", classifier.run, settings.precision)
    encoder = load_encoder(
        settings.encoder, settings.layer, backend="torch", seed=settings.seed,
        context=settings.context,
    )  # fmt: skip
    return Classifier(classifier.run, classifier.heads, encoder)


# --- the file --------------------------------------------------------------------------------


def export_onnx(
    classifier: Classifier,
    out: Path,
    clips: Sequence[Path],
    int8: bool = False,
    listing: Listing | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write a classifier as an ONNX file and, if wished, an 8-bit variant next to it.

    Both appear under their names only whole and checked; a file from before stays otherwise.

    Args:
        classifier: By backend torch, in fp32.
        out: `F.onnx`; the 8-bit variant is `F.int8.onnx`.
        clips: Files that the graph is compared with the classifier on.
        int8: Whether to write the 8-bit variant.
        listing: Labelled clips to score the files on.
        quiet: Whether their progress is hidden.

    Returns:
        `onnx`, `bytes`, `check`, and where asked for `int8` and `measured`.

    Raises:
        ExportError: The file says something else than the classifier, or is too large.
        AudioError: A clip can't be used.
        MissingExtra: onnx or onnxruntime isn't installed.
    """
    require_onnx()
    if out.is_dir():
        raise ExportError(f"{out}: a folder; name a file, for instance {out / 'classifier.onnx'}")
    out.parent.mkdir(parents=True, exist_ok=True)
    small_out = out.with_name(f"{out.stem}.int8{out.suffix}")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        plain, full, small = (Path(folder) / f"{name}.onnx" for name in ("plain", "full", "int8"))
        write_onnx(graph_of(classifier), round((classifier.seconds or 1.0) * SAMPLE_RATE), plain)
        store_half_precision(plain, full)
        files: dict[str, Runner] = {"fp32": OnnxClassifier(full)}
        check = require_equal(out, differences_of(files["fp32"], classifier, clips))
        figures: dict[str, Any] = {"check": {"clips": len(clips), **check}}
        if int8:
            quantise(plain, small)
            store_half_precision(small, small)
            files["int8"] = OnnxClassifier(small)
            against = agreement(files["int8"], files["fp32"], classifier, clips)
        if listing is not None:
            figures["measured"] = measure_accuracy(files, classifier, listing, quiet)
        facts = {**facts_of(classifier), **figures}
        set_metadata(full, {**facts, "precision": "fp32"})
        written = {"onnx": str(out), "bytes": full.stat().st_size, **figures}
        if int8:
            set_metadata(small, {**facts, "precision": "int8", "against_fp32": against})
            written["int8"] = {"onnx": str(small_out), "bytes": small.stat().st_size, **against}
            small.replace(small_out)
        full.replace(out)
    return written


# --- the command -----------------------------------------------------------------------------


def _clips_to_check(config: ExportConfig) -> list[Path]:
    paths = [
        path
        for given in config.check or (DEMO_CORPUS,)
        for path in (AudioFile.find(given) if given.is_dir() else [given])
    ]
    if not paths:
        raise AudioError(f"{(*config.check, DEMO_CORPUS)[0]}: no audio file in it")
    return paths if config.check else paths[:: -(-len(paths) // N_DEMO_CLIPS)]


def _listing(config: ExportConfig) -> Listing | None:
    if not (config.measure or config.corpus or config.csv):
        return None
    found = listing_of(config.measure, config.corpus, config.csv)
    return Listing(found.corpus, found.root, spread(found.utterances, config.limit), found.faults)


def export_run(config: ExportConfig) -> Outcome:
    """Write what was asked for and print what it is worth.

    Raises:
        SerEmbedError: No run, nothing asked for, or an export that isn't the classifier.
    """
    if config.out is None and config.to_hub is None:
        raise ExportError("say what to write: --out F.onnx, --to-hub FOLDER, or both")
    listing = _listing(config)
    if config.out is None and (config.int8 or listing):
        raise ExportError("--int8 and what is measured belong to an ONNX file: name it with --out")
    if config.out is not None:
        require_onnx()
    classifier = _loaded(config.run, config.runs_dir)
    log.info("%s: %s", classifier.run, classifier.about)
    clips = _clips_to_check(config)
    result: dict[str, Any] = {"run": str(classifier.run)}
    if config.out is not None:
        result |= export_onnx(classifier, config.out, clips, config.int8, listing, config.quiet)
    if config.to_hub is not None:
        result["hub"] = write_folder(classifier, graph_of(classifier), config.to_hub, clips)
    if not config.json:
        _show(result)
    failed = result.get("measured", {}).get("failed")
    return Outcome(result, SOME_CLIPS_FAILED if failed else DONE)


def _show(result: Mapping[str, Any]) -> None:
    if "onnx" in result:
        check = result["check"]
        print(
            f"{result['onnx']}: {result['bytes'] / 1e6:.1f} MB, on {check['clips']} clips within "
            f"{check['largest_difference']:.1e} of the classifier"
        )
    if "int8" in result:
        small = result["int8"]
        print(
            f"{small['onnx']}: {small['bytes'] / 1e6:.1f} MB, on {small['clips']} clips "
            f"{small['label_agreement']:.1%} of the labels that fp32 gives, probabilities within "
            f"{small['largest_difference']:.4f}"
        )
    if "measured" in result:
        scores = result["measured"]
        print(f"{scores['corpus']}, {scores['clips']} clips:")
        for name in ("fp32", "int8"):
            if name in scores:
                print(f"  {name}  WA {scores[name]['wa']:.1%}  UAR {scores[name]['uar']:.1%}")
        if scores["trained_on"]:
            print("  careful: the run was trained on this corpus, so only compare the two")
    if "hub" in result:
        hub = result["hub"]
        print(
            f"{hub['folder']}: on {hub['clips']} clips within {hub['largest_difference']:.1e} "
            f"of the classifier; to publish it:\n  {hub['upload']}"
        )
