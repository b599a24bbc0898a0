"""How far features are from transformers run one clip at a time in fp32, by family of encoders.

`python benchmarks/parity.py` writes artifacts/benchmarks/parity.json. The checkpoints have each
family's published configuration and seeded weights; the clips, of four lengths, go through as one
padded batch. The figures are the largest relative deviation of a clip's last hidden layer, in the
2-norm: from transformers, and in a batch from the same alone.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
import torch
import transformers
import tyro

from ser_embed import load_encoder
from ser_embed.audio.decoding import load_audio

GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
         "intermediate_size": 4096}  # fmt: skip
FAMILIES = {
    "wav2vec2-base (group norm)": ("wav2vec2", GROUP),
    "wav2vec2-large-lv60 (layer norm)": ("wav2vec2", LAYER | LARGE),
    "hubert-base (group norm)": ("hubert", GROUP),
    "hubert-large (layer norm)": ("hubert", LAYER | LARGE),
    "wavlm-base (group norm)": ("wavlm", GROUP),
    "wavlm-large (layer norm)": ("wavlm", LAYER | LARGE),
    "distilhubert (group norm)": (
        "hubert",
        GROUP | {"num_hidden_layers": 2, "feat_proj_layer_norm": False},
    ),
    "data2vec-base (layer norm)": ("data2vec-audio", {}),
    "unispeech-sat-base (group norm)": ("unispeech-sat", GROUP),
    "whisper-tiny (at 30 s)": ("whisper", {"num_hidden_layers": 4}),
}
LIMITS = {"fp32": 1e-4, "bf16": 2e-2}


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    lengths: tuple[int, ...] = (48_000, 48_000, 40_000, 27_777)
    """Lengths of the clips in samples at 16 kHz."""


def save(family: str, folder: Path) -> None:
    """Save a checkpoint of a family with seeded weights."""
    kind, options = FAMILIES[family]
    config = transformers.AutoConfig.for_model(kind, **options)
    torch.manual_seed(0)
    if kind == "whisper":
        config = transformers.WhisperConfig()  # its defaults are whisper-tiny's
        transformers.WhisperModel(config).save_pretrained(folder)
        transformers.WhisperFeatureExtractor().save_pretrained(folder)
        return
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


def reference(folder: Path, waves: list[np.ndarray]) -> list[np.ndarray]:
    """Return what transformers gives, one clip at a time."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    prepare = transformers.AutoFeatureExtractor.from_pretrained(folder)
    if model.config.model_type == "whisper":
        # Of 30 s the clip's own frames, one every 20 ms.
        mels = [prepare(w, sampling_rate=16_000, return_tensors="pt").input_features for w in waves]
        with torch.inference_mode():
            return [
                model.encoder(mel).last_hidden_state[0, : (len(wave) // 160 + 1) // 2].numpy()
                for mel, wave in zip(mels, waves, strict=True)
            ]
    with torch.inference_mode():
        return [
            model(prepare(wave, sampling_rate=16_000, return_tensors="pt").input_values)
            .last_hidden_state[0].numpy()
            for wave in waves
        ]  # fmt: skip


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the deviation of one clip's states in the 2-norm."""
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def main(settings: Settings) -> None:
    """Compare, print and write."""
    rows = []
    voices = [load_audio(p) for p in sorted(common.DEMO_CORPUS.rglob("*.ogg"))[::90]]
    waves = [np.resize(v, n) for v, n in zip(voices, settings.lengths, strict=False)]
    for family, (kind, options) in FAMILIES.items():
        context = "30s" if kind == "whisper" else "clip"
        with tempfile.TemporaryDirectory() as name:
            save(family, Path(name))
            wanted = reference(Path(name), waves)
            for backend in ("torch", "openvino"):
                for precision, limit in LIMITS.items():
                    encoder = load_encoder(
                        name, options.get("num_hidden_layers", 12), backend=backend,
                        precision=precision, context=context,
                    )  # fmt: skip
                    given = encoder.encode(waves)
                    alone = [encoder.encode([wave])[0] for wave in waves]
                    deviation = max(map(relative, (states[0] for states in given), wanted))
                    of_batch = max(map(relative, given, alone))
                    rows.append({"family": family, "backend": backend, "precision": precision,
                                 "deviation": deviation, "limit": limit,
                                 "batch_deviation": of_batch})  # fmt: skip
                    print(f"{family:34} {backend:9} {precision}  {deviation:.1e}  in a batch "
                          f"{of_batch:.1e}", flush=True)  # fmt: skip
    common.write("parity", {"rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Settings))
