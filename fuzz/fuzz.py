"""Coverage-guided fuzzing with atheris: any bytes give a result or an error of ser_embed's own.

`pip install atheris`, then `python fuzz/fuzz.py TARGET --seconds 180`, with TARGET one of names,
tables, audio, store, card, archive. It starts from `fuzz/inputs/TARGET`, ends after so many
seconds, and prints how many inputs were tried; an input that crashes is written to
`fuzz/found/TARGET`. `--replay FILE...` runs such inputs again, without atheris.
"""

import argparse
import contextlib
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
MEMORY = 6000  # megabytes, most of them torch's own
SLOWEST = 25  # seconds that one input may take


def names(data: bytes, folder: Path) -> None:
    """File names through every naming rule."""
    from ser_embed.corpora.naming import CORPORA, recognise
    from ser_embed.errors import CorpusError

    path = Path(data.decode("utf-8", "surrogateescape"))
    found = recognise(path)
    assert found is None or found.corpus in CORPORA
    for corpus in CORPORA.values():
        with contextlib.suppress(CorpusError):
            corpus.parse(path)


def tables(data: bytes, folder: Path) -> None:
    """CSVs of a corpus, mapping files and published folds."""
    import pandas as pd

    from ser_embed.corpora.labels import LabelScheme
    from ser_embed.corpora.listing import read_csv
    from ser_embed.errors import CorpusError, LabelError, SplitError
    from ser_embed.splits.rules import make_splits

    for name in ("table.csv", "table.json"):
        (folder / name).write_bytes(data)
        with contextlib.suppress(LabelError):
            assert len(LabelScheme.load(str(folder / name)).classes) >= 2
    with contextlib.suppress(CorpusError):
        assert read_csv(folder / "table.csv").utterances
    clips = pd.DataFrame({"path": ["a.wav", "b.wav", "c.wav", "d.wav"], "label": [0, 1, 0, 1],
                          "corpus": "x", "speaker": ["1", "2", "3", "4"], "gender": "",
                          "sha256": list("abcd"), "recording": "", "part": ""})  # fmt: skip
    with contextlib.suppress(SplitError):
        make_splits(f"folds:{folder / 'table.csv'}", clips, ("happy", "sad"), 0)


def audio(data: bytes, folder: Path) -> None:
    """Audio files, headers above all."""
    import numpy as np

    from ser_embed.audio import AudioFile
    from ser_embed.errors import AudioError

    path = folder / "clip.wav"
    path.write_bytes(data)
    for trim in (False, True):
        with contextlib.suppress(AudioError):
            clip = AudioFile(path).read(3.0, trim)
            assert 400 <= len(clip.samples) <= 48_000
            assert np.isfinite(clip.samples).all()


def store(data: bytes, folder: Path) -> None:
    """Feature stores."""
    from ser_embed.errors import StoreError
    from ser_embed.store.checking import verify
    from ser_embed.store.reader import FeatureStore

    path = folder / "store.h5"
    path.write_bytes(data)
    with contextlib.suppress(StoreError), FeatureStore(path) as opened:
        _ = opened.rows, opened.frames, opened.shape
        opened.read(range(min(3, len(opened))))
    assert isinstance(verify(path), list)


def card(data: bytes, folder: Path) -> None:
    """Cards of heads."""
    from ser_embed.errors import HeadError
    from ser_embed.heads.checkpoint import build_head, load_head, save_head
    from ser_embed.predict.classifier import Classifier

    weights = folder / "head.safetensors"
    if not weights.exists():
        save_head(folder, build_head("mlp", (1, 4), 2, True, seed=0), {})
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    (folder / "card.json").write_bytes(data.replace(b"W" * 64, digest.encode()))
    with contextlib.suppress(HeadError):
        _, told = load_head(folder)
        Classifier.settings_of(told, folder)


def archive(data: bytes, folder: Path) -> None:
    """Archives of corpora: nothing is written outside of their folder."""
    from ser_embed.corpora.archives import Limits, unpack
    from ser_embed.errors import DownloadError

    (folder / "archive").write_bytes(data)
    with contextlib.suppress(DownloadError):
        unpack(folder / "archive", folder / "deep" / "corpus", Limits(100_000, 20))
    assert {path.name for path in folder.iterdir()} <= {"archive", "deep"}
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    shutil.rmtree(folder / "deep", ignore_errors=True)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "names": names, "tables": tables, "audio": audio, "store": store, "card": card,
    "archive": archive,
}  # fmt: skip


def main() -> None:
    """Fuzz one target, or replay inputs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=180, help="how long (default: 180)")
    parser.add_argument("--replay", nargs="+", type=Path, metavar="FILE", help="run these alone")
    options = parser.parse_args()
    target = TARGETS[options.target]
    with tempfile.TemporaryDirectory() as folder:
        if options.replay:
            for file in options.replay:
                print(file)
                target(file.read_bytes(), Path(folder))
            return
        fuzz(options.target, lambda data: target(data, Path(folder)), options.seconds)


def fuzz(name: str, target: Callable[[bytes], None], seconds: int) -> None:
    """Run atheris, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=["ser_embed", "soundfile", "tarfile", "zipfile"]):
        from ser_embed.audio import decoding
        from ser_embed.corpora import archives, labels, listing, naming
        from ser_embed.heads import checkpoint as heads
        from ser_embed.predict import classifier as predict
        from ser_embed.splits import rules as splits
    assert all((archives, decoding, heads, labels, listing, naming, predict, splits))
    found = HERE / "found" / name
    found.mkdir(parents=True, exist_ok=True)
    kept = found / "kept"
    kept.mkdir(exist_ok=True)
    atheris.Setup(
        [sys.argv[0], str(kept), str(HERE / "inputs" / name), f"-max_total_time={seconds}",
         f"-artifact_prefix={found}/", f"-timeout={SLOWEST}", f"-rss_limit_mb={MEMORY}",
         "-max_len=40000", "-print_final_stats=1"],
        target,
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main()
