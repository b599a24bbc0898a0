"""Make the inputs that fuzzing starts from: small, real, and from nobody's recordings.

`python fuzz/inputs.py` writes them anew under `fuzz/inputs/`, one folder a target.
"""

import io
import json
import tarfile
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile

from ser_embed.heads.checkpoint import sealed
from ser_embed.store.settings import FeatureSettings
from ser_embed.store.table import ClipRow, EncodedClip
from ser_embed.store.writer import StoreWriter

FOLDER = Path(__file__).resolve().parent / "inputs"

NAMES = (
    "03-01-05-02-02-01-12.wav", "OAF_back_angry.wav", "OA_bite_neutral.wav", "SM4_F2_A054.wav",
    "1040_ITH_SAD_X.wav", "03a01Fa.wav", "DC/a01.wav", "JK_su15.wav", "EB0_anger_10.wav",
)  # fmt: skip
TABLES = {
    "corpus.csv": "path,emotion,speaker,gender,intensity,split\na.wav,happy,s1,f,strong,train\n"
                  '"b,c.wav",Anger,s2,m,,test\n',
    "labels.csv": "emotion,label\nhappy,good\nsad/strong,bad\ncalm,\n",
    "labels.json": '{"happy": "good", "sad/strong": "bad", "calm": null}',
    "folds.csv": "file,label,fold_1,fold_2\na,happy,train,test\nb,sad,test,train\n",
}  # fmt: skip
SETTINGS = FeatureSettings(
    encoder="mini", weights="a" * 64, layer=6, pool="none", norm="frame", trim=True, seconds=3.0,
    fill="none", dtype="float16", precision="fp32", seed=0,
)  # fmt: skip


def audio(folder: Path) -> None:
    """A tenth of a second of a tone, in each format."""
    time = np.arange(1600) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 220 * time)
    for ending, subtype in ((".wav", "PCM_16"), (".flac", "PCM_16"), (".ogg", "VORBIS"),
                            (".opus", "OPUS"), (".mp3", "MPEG_LAYER_III")):  # fmt: skip
        container = "OGG" if ending == ".opus" else None
        soundfile.write(folder / f"tone{ending}", tone, 16_000, subtype, format=container)
    soundfile.write(folder / "float.wav", np.stack([tone, tone], 1), 48_000, "FLOAT")


def store(folder: Path) -> None:
    """A finished store of three clips, one of which failed."""
    path = folder / "store.h5"
    path.unlink(missing_ok=True)  # not added to
    rng = np.random.default_rng(0)
    with StoreWriter.open(path, SETTINGS, "demo", Path("/"), trained=True, demo=True) as writer:
        rows = [
            ClipRow(f"clip-{i}.wav", "demo", f"demo:{i}", "female", "happy", "", "", "", "", 1.0,
                    f"{i:064x}", "stored", "", 0)
            for i in range(2)
        ]  # fmt: skip
        for row in rows:
            features, extrema = rng.normal(size=(3, 4)), rng.normal(size=(3, 2))
            writer.add([EncodedClip(row, features.astype("f4"), extrema.astype("f4"), 3)])
        failed = ClipRow("bad.wav", "demo", "", "", "", "", "", "", "", 0.0, "", "failed", "no", 0)
        for row in (*rows, failed):
            writer.record(row)
        writer.finish()
    for left in folder.glob(".*"):
        left.unlink()


def card(folder: Path) -> None:
    """The card of a small head, sealed and not; W stands for the digest of its weights."""
    told = {
        "format": "ser_embed head", "schema": 1, "weights_sha256": "W" * 64,
        "head": {"name": "mlp", "members": 1, "shape": [1, 4], "pooled": True},
        "classes": ["a", "b"], "temperature": 1.0, "features": asdict(SETTINGS),
    }  # fmt: skip
    (folder / "sealed.json").write_text(sealed(told), encoding="utf-8")
    (folder / "unsealed.json").write_text(json.dumps(told), encoding="utf-8")


def archive(folder: Path) -> None:
    """Three files, packed in each way."""
    files = {"a/one.wav": b"1" * 100, "a/b/two.wav": b"22", "n\u00e4me.txt": b""}
    with zipfile.ZipFile(folder / "files.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(zipfile.ZipInfo(name), data)
    for mode in ("w", "w:gz"):
        with tarfile.open(folder / f"files.{mode[-2:].replace('w', 'tar')}", mode) as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def main() -> None:
    """Write everything."""
    folders = {
        name: FOLDER / name for name in ("names", "tables", "audio", "store", "card", "archive")
    }
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        (folders["names"] / f"{number}.txt").write_text(name, encoding="utf-8")
    for name, text in TABLES.items():
        (folders["tables"] / name).write_text(text, encoding="utf-8")
    audio(folders["audio"])
    store(folders["store"])
    card(folders["card"])
    archive(folders["archive"])


if __name__ == "__main__":
    main()
