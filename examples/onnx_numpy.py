"""Classify a file by an exported classifier, with numpy, soundfile and onnxruntime alone.

`python examples/onnx_numpy.py classifier.onnx clip.wav`, where the ONNX file is one that
`python -m ser_embed.export` wrote. It says of itself how clips are to be prepared.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile


def prepare(samples: np.ndarray, facts: dict[str, str], sha256: str) -> np.ndarray:
    """Trim, cut and fill mono samples (n,) at 16 kHz; the file's hash seeds the random fill."""
    seconds, fill = float(facts["window_seconds"]), facts["fill"]
    wanted = round(seconds * 16_000)
    if json.loads(facts["trim"]) and len(samples) >= 320:
        samples = samples[: round((seconds + 10) * 16_000)] if seconds else samples
        frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)  # of 20 ms
        power = np.mean(np.square(frames, dtype=np.float64), axis=1)
        loud = np.flatnonzero(power >= power.max() * 1e-4)  # 40 dB below the loudest
        end = (loud[-1] + 1 + 3) * 320  # three frames stay on either side
        samples = samples[max(0, loud[0] - 3) * 320 : end if end < frames.size else None]
    samples = samples[:wanted] if wanted else samples
    missing = max(0, wanted - len(samples))
    if fill == "none" or not missing:
        return samples
    rng = np.random.default_rng([int(facts["seed"]), int(sha256[:16], 16)])
    tails = {
        "sample": lambda: samples[rng.integers(0, len(samples), missing)],
        "repeat": lambda: np.resize(samples, missing),
        "zero": lambda: np.zeros(missing, np.float32),
    }
    return np.concatenate([samples, tails[fill]()])


def main(model: str, clip: str) -> None:
    """Print the label of a clip and each class's probability."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    samples, rate = soundfile.read(clip, dtype="float32", always_2d=True)
    if rate != int(facts["sample_rate"]):
        sys.exit(f"{clip}: {rate} Hz; resample it first, for instance: sox IN -r 16000 OUT")
    mono = samples.mean(axis=1, dtype=np.float64).astype(np.float32)
    waveform = prepare(mono, facts, hashlib.sha256(Path(clip).read_bytes()).hexdigest())
    (probabilities,) = session.run(["probabilities"], {"waveform": waveform[None]})[0]
    labels = json.loads(facts["labels"])
    print(labels[int(probabilities.argmax())])
    for label, probability in zip(labels, probabilities, strict=True):
        print(f"  {label}: {probability:.6f}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
