"""The low-level descriptors: known signals have known values."""

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

from ser_embed.pretrain.descriptors import FRAME_NAMES, Descriptors, describe, functionals

RATE = 16_000


def harmonic(pitch: float, tilt: float = 1.0, seconds: float = 1.0) -> torch.Tensor:
    """A buzz whose k-th harmonic has amplitude k ** -tilt, at unit variance."""
    t = torch.arange(round(seconds * RATE)) / RATE
    harmonics = range(1, int(7000 / pitch))
    wave = torch.stack([torch.sin(2 * torch.pi * pitch * k * t) * k**-tilt for k in harmonics])
    wave = wave.sum(0)
    return wave / wave.std()


def of(wave: torch.Tensor) -> dict[str, torch.Tensor]:
    """The descriptors of one clip by name, (T,)."""
    found = describe(wave[None], torch.tensor([len(wave)]))
    return dict(zip(FRAME_NAMES, found.values[0].T, strict=True))


@pytest.mark.parametrize("pitch", [70, 110, 180, 240, 330, 450])
@pytest.mark.parametrize("tilt", [0.5, 1.0, 2.0])
def test_pitch(pitch: int, tilt: float) -> None:
    found = of(harmonic(pitch, tilt))
    inner = slice(3, -3)  # windows that reach beyond the clip see less of it
    np.testing.assert_allclose(found["log_f0"].exp()[inner], pitch, rtol=0.01)
    assert found["voicing"][inner].min() > 0.9


def test_noise_has_no_pitch() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(RATE).astype(np.float32))
    found = describe(noise[None], torch.tensor([RATE]))
    column = FRAME_NAMES.index("log_f0")
    assert found.known[0, :, column].float().mean() < 0.05
    assert found.known[0, :, FRAME_NAMES.index("log_energy")].all()


def test_a_rising_pitch_has_a_slope() -> None:
    t = torch.arange(2 * RATE) / RATE
    phase = 2 * torch.pi * torch.cumsum(120 * 2 ** (t / 2), 0) / RATE  # one octave in 2 s
    wave = sum(torch.sin(k * phase) / k for k in range(1, 12))
    found = of(wave / wave.std())
    # Six frames, 0.12 s, lie between the sides of the slope: 0.06 octaves.
    np.testing.assert_allclose(found["delta_log_f0"][10:-10].median(), 0.06 * np.log(2), rtol=0.05)
    steady = of(harmonic(120, seconds=2.0))
    assert steady["delta_log_f0"][10:-10].abs().max() < 1e-3
    assert found["log_f0_std_1s"][30:-30].min() > 5 * steady["log_f0_std_1s"][30:-30].max()


def test_spectral_balance() -> None:
    """A pressed voice has more above 1 kHz than a breathy one, whose first harmonic is strong."""
    pressed, breathy = of(harmonic(150, tilt=0.5)), of(harmonic(150, tilt=2.5))
    for name in ("alpha_ratio", "hammarberg", "h1_h2"):
        assert breathy[name].median() > pressed[name].median() + 1, name
    assert breathy["centroid"].median() < pressed["centroid"].median()
    assert breathy["slope_500_1500"].median() < pressed["slope_500_1500"].median()
    # In powers, a harmonic's level falls by 2 tilt log 2 to the second.
    assert breathy["h1_h2"][5:-5].median() == pytest.approx(2 * 2.5 * np.log(2), rel=0.2)


def test_energy_follows_the_level() -> None:
    wave = harmonic(150)
    loud, soft = of(wave), of(wave / 10)
    difference = (loud["log_energy"] - soft["log_energy"])[3:-3]
    np.testing.assert_allclose(difference, np.log(100), rtol=1e-3)
    pulsing = wave * (torch.arange(len(wave)) // 3200 % 2 + 0.1)
    spread = of(pulsing)["energy_std_0.5s"]
    assert spread[10:-10].min() > 10 * loud["energy_std_0.5s"][15:-15].max()


def test_one_row_for_every_frame_of_the_encoder() -> None:
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=[4] * 7, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    encoder = Wav2Vec2Model(config).eval()
    for n in (400, 719, 720, 16_000, 48_000, 50_123):
        wave = torch.randn(1, n, generator=torch.Generator().manual_seed(n))
        found = describe(wave, torch.tensor([n]))
        with torch.inference_mode():
            frames = encoder(wave).last_hidden_state.shape[1]
        assert found.values.shape == found.known.shape == (1, frames, len(FRAME_NAMES))
        assert found.values.isfinite().all()


def test_a_clip_is_described_alike_in_any_batch() -> None:
    """Frames behind a clip's end are unknown, and what follows it changes nothing before."""
    short, long = harmonic(140, seconds=1.0), harmonic(220, seconds=2.0)
    batch = torch.stack([torch.nn.functional.pad(short, (0, RATE)), long])
    both = describe(batch, torch.tensor([RATE, 2 * RATE]))
    alone = describe(short[None], torch.tensor([RATE]))
    frames = alone.values.shape[1]
    assert not both.known[0, frames:].any()
    assert torch.equal(both.known[0, :frames], alone.known[0])
    known = alone.known[0]
    torch.testing.assert_close(both.values[0, :frames][known], alone.values[0][known])
    np.testing.assert_allclose(functionals(both)[0], functionals(alone)[0], rtol=1e-4, atol=1e-4)


def test_silence_is_finite() -> None:
    found = describe(torch.zeros(2, 8000), torch.tensor([8000, 4000]))
    assert found.values.isfinite().all()
    assert not found.known[..., FRAME_NAMES.index("log_f0")].any()
    assert functionals(found).isfinite().all()


def test_functionals_are_mean_and_standard_deviation_of_what_is_known() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 40, 5)).astype(np.float32)
    known = rng.random((3, 40, 5)) < 0.6
    found = functionals(Descriptors(torch.from_numpy(values), torch.from_numpy(known))).numpy()
    masked = np.ma.array(values, mask=~known)
    expected = np.concatenate([masked.mean(1), masked.std(1)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
