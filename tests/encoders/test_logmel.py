"""The spectrogram in an encoder's place: torchaudio's figures, frame by frame, in every engine."""

import numpy as np
import pytest
import torch
import torchaudio

from ser_embed.encoders.frozen import load_encoder
from ser_embed.errors import EncoderError
from ser_embed.finetune.network import build_network


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, n).astype(np.float32)


def test_it_is_torchaudios_mel_spectrogram() -> None:
    samples = noise(48_000)
    (states,) = load_encoder("log-mel", backend="torch").encode([samples])
    mel = torchaudio.transforms.MelSpectrogram(
        16_000, n_fft=400, hop_length=160, f_min=50.0, n_mels=64, center=False, normalized=True
    )
    scaled = torch.from_numpy((samples - samples.mean()) / samples.std())
    wanted = mel(scaled).clamp_min(1e-6).log().T.numpy()
    assert states.shape == (1, 298, 64)
    np.testing.assert_allclose(states[0], wanted, atol=2e-4)


def test_a_batch_gives_what_one_clip_at_a_time_does() -> None:
    encoder = load_encoder("log-mel", backend="torch")
    clips = [noise(n, n) for n in (400, 559, 560, 16_000, 47_999)]
    together = encoder.encode(clips)
    assert [len(states[0]) for states in together] == [1, 1, 2, 98, 298]
    for clip, states in zip(clips, together, strict=True):
        assert encoder.n_frames(len(clip)) == states.shape[1]
        np.testing.assert_allclose(encoder.encode([clip])[0], states, atol=1e-4)


def test_openvino_gives_the_same() -> None:
    pytest.importorskip("openvino")
    clips = [noise(16_000), noise(8_000)]
    for one, other in zip(
        load_encoder("log-mel", backend="torch").encode(clips),
        load_encoder("log-mel", backend="openvino").encode(clips), strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(other, one, atol=1e-3)


def test_it_has_no_logits_no_layers_and_nothing_to_fine_tune() -> None:
    with pytest.raises(EncoderError, match="log-mel: has no CTC head"):
        load_encoder("log-mel", "logits")
    with pytest.raises(EncoderError, match="log-mel: no layer 3; it has 0 to 0"):
        load_encoder("log-mel", 3)
    with pytest.raises(EncoderError, match="only encoders of transformers"):
        build_network("mlp", "log-mel", ("a", "b"), 0.0, 0)
