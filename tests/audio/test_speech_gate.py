"""The gate: real speech-like clips pass, silence, noise and what isn't finite don't."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ser_embed.audio.cutting import trim_silence
from ser_embed.audio.decoding import load_audio
from ser_embed.audio.voice import SpeechGate, is_loud
from ser_embed.bundled import DEMO_CORPUS

CLIPS = sorted(DEMO_CORPUS.rglob("*.ogg"))[::60]


@pytest.fixture(params=["silero-vad", "energy"])
def gate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SpeechGate:
    """Both gates, silero-vad where it is installed."""
    if request.param == "energy":
        monkeypatch.setitem(sys.modules, "silero_vad", None)
    else:
        pytest.importorskip("silero_vad")
    gate = SpeechGate()
    assert gate.name == request.param
    return gate


def halves(samples: np.ndarray) -> list[np.ndarray]:
    n = round(SpeechGate.SECONDS * 16_000)
    return [samples[i : i + n] for i in range(0, len(samples) - n + 1, n)]


def noise(level: float, n: int = 8_000) -> np.ndarray:
    """White noise of so many dB of full scale."""
    return (10 ** (level / 20) * np.random.default_rng(0).standard_normal(n)).astype(np.float32)


def test_speech_is_speech(gate: SpeechGate) -> None:
    judged = [gate.is_speech(h) for path in CLIPS for h in halves(trim_silence(load_audio(path)))]
    assert len(judged) > 12
    assert np.mean(judged) > 0.9


def test_the_softest_real_speech_passes_somewhere(gate: SpeechGate, shared: object) -> None:
    folder = shared / "corpora/ravdess"  # type: ignore[operator]
    paths = sorted(p for p in folder.rglob("*") if p.stem.startswith("03-01-02"))[::24]
    if not paths:
        pytest.skip("no RAVDESS there")
    found = [any(map(gate.is_speech, halves(trim_silence(load_audio(path))))) for path in paths]
    assert np.mean(found) > 0.8


@pytest.mark.parametrize("level", [-65, -80, -120])
def test_a_quiet_room_is_no_speech(gate: SpeechGate, level: float) -> None:
    assert not gate.is_speech(noise(level))


def test_what_is_no_sound_is_no_speech(gate: SpeechGate) -> None:
    assert not gate.is_speech(np.zeros(8_000, dtype=np.float32))
    assert not gate.is_speech(np.empty(0, dtype=np.float32))
    for bad in (np.nan, np.inf):
        speech = load_audio(CLIPS[0])[8_000:16_000].copy()
        speech[4_000] = bad
        assert not gate.is_speech(speech)


def test_energy_is_root_mean_square_of_a_tenth_of_a_second() -> None:
    sine = np.sin(2 * np.pi * 440 * np.arange(8_000) / 16_000).astype(np.float32)  # -3.01 dB
    assert is_loud(0.1 * sine, -23.1)
    assert not is_loud(0.1 * sine, -22.9)
    click = np.zeros(8_000, dtype=np.float32)
    click[4_000] = 0.1  # -20 dB for one sample: -52 dB over 1,600
    assert not is_loud(click)
    assert is_loud(np.concatenate([click, 0.1 * sine])[:9_600])


def test_silero_tells_noise_from_speech() -> None:
    pytest.importorskip("silero_vad")
    assert is_loud(noise(-30))
    assert not SpeechGate().is_speech(noise(-30))


def test_silero_leaves_the_number_of_threads_alone() -> None:
    pytest.importorskip("silero_vad")
    code = (
        "import torch; torch.set_num_threads(3)\n"
        "import numpy as np; from ser_embed.audio.voice import SpeechGate\n"
        "SpeechGate().is_speech(np.full(8000, 0.1, dtype=np.float32))\n"
        "print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3"]


def test_threads_get_what_one_alone_gets(gate: SpeechGate) -> None:
    stretches = [half for path in CLIPS for half in (*halves(load_audio(path)), noise(-80))]
    alone = [gate.is_speech(half) for half in stretches]
    assert 0 < sum(alone) < len(alone)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(gate.is_speech, stretches)) == alone
