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


def power_of(samples: np.ndarray) -> np.ndarray:
    """Return the mean square of each frame of 20 ms."""
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    return np.mean(np.square(frames, dtype=np.float64), axis=1)


def without_clicks(power: np.ndarray) -> np.ndarray:
    """Set to zero what is under 100 ms and 25 dB above the loudest 0.3 s."""
    if len(power) <= 15:
        return power
    usual, rest = np.partition(power, -15)[-15], power.copy()
    edges = np.flatnonzero(np.diff(power > usual * 10**2.5, prepend=0, append=0))
    for start, end in edges.reshape(-1, 2):
        if end - start <= 5:
            while start > 0 and rest[start - 1] > usual:
                start -= 1
            while end < len(rest) and rest[end] > usual:
                end += 1
            rest[start:end] = 0.0
    return rest if rest.max() > power.max() * 10**-6.0 else power


def sound(power: np.ndarray, n_clip: int) -> np.ndarray:
    """Return the frames that aren't silence, 40 dB below the loudest."""
    power = without_clicks(power)
    loud = np.flatnonzero(power >= power.max() * 10**-4.0)
    while n_clip:  # a knock that the clip would end with, before the speech, is left out
        later = loud[loud >= loud[0] + n_clip]
        if len(loud) - len(later) > 5 or len(later) < 15:
            break
        loud = later
    return loud


def trim(samples: np.ndarray, seconds: float) -> np.ndarray:
    """Cut the silence before and after the sound, but for 60 ms."""
    within, n_clip = round((seconds + 10) * 16_000), round(seconds * 16_000) // 320
    if seconds and len(samples) > within:
        power = power_of(samples[:within])
        if (power > 10**-5.0).sum() < 15:  # quiet so far: the whole says what is sound
            power = power_of(samples)
        start = max(0, sound(power, n_clip)[0] - 3) * 320
        begin = start if start > 160_000 else 0
        samples = samples[begin : begin + within]
    power = power_of(samples)
    if not len(power):
        return samples
    loud = sound(power, n_clip)
    end = (loud[-1] + 1 + 3) * 320
    return samples[max(0, loud[0] - 3) * 320 : end if end < len(power) * 320 else None]


def prepare(samples: np.ndarray, facts: dict[str, str], sha256: str) -> np.ndarray:
    """Trim, cut and fill mono samples (n,) at 16 kHz; the file's hash seeds the random fill."""
    seconds, fill = float(facts["window_seconds"]), facts["fill"]
    wanted = round(seconds * 16_000)
    if json.loads(facts["trim"]):
        samples = trim(samples, seconds)
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
