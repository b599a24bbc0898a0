"""Whisper's encoder: transformers as the oracle, and a clip that doesn't depend on its batch."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from conftest import tiny_whisper_checkpoint
from safetensors.torch import load_file, save_file
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ser_embed.bundled import DEMO_CORPUS
from ser_embed.encoders.frozen import Encoder, load_encoder
from ser_embed.encoders.registry import BackendName
from ser_embed.encoders.whisper import WhisperLogMel, WhisperStates, mel_bank
from ser_embed.errors import EncoderError

BACKENDS: tuple[BackendName, ...] = ("torch", "openvino")


def voices(*seconds: float) -> list[np.ndarray]:
    """Clips of the synthetic voices, one behind another until they are as long."""
    files = sorted(DEMO_CORPUS.rglob("*.ogg"))[::40]
    speech = np.concatenate([soundfile.read(file, dtype="float32")[0] for file in files])
    assert len(speech) > 16_000
    starts = range(0, 8_000 * len(seconds), 8_000)
    return [
        np.resize(speech[start:], round(length * 16_000))
        for start, length in zip(starts, seconds, strict=True)
    ]


def states_of_transformers(folder: Path, clips: list[np.ndarray]) -> list[np.ndarray]:
    """Hidden states (L, 1500, D) of each clip, padded to 30 s, by transformers alone."""
    model = WhisperEncoder.from_pretrained(
        folder, dtype=torch.float32, key_mapping={r"^(model\.)?encoder\.": ""}
    ).eval()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    found = []
    for clip in clips:
        mel = extractor(clip, sampling_rate=16_000, return_tensors="pt").input_features
        with torch.inference_mode():
            out = model(mel, output_hidden_states=True)
        states = torch.cat([*out.hidden_states[:-1], out.last_hidden_state])
        found.append(states.numpy())
    return found


def deviation(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("n_mels", [80, 128])
def test_the_filters_are_those_of_transformers(n_mels: int) -> None:
    theirs = transformers.WhisperFeatureExtractor(feature_size=n_mels).mel_filters
    assert np.abs(mel_bank(n_mels).numpy() - theirs).max() < 1e-7


@pytest.mark.parametrize("n_mels", [80, 128])
def test_the_spectrogram_is_that_of_transformers(n_mels: int) -> None:
    extractor = transformers.WhisperFeatureExtractor(feature_size=n_mels)
    # In 30 s, bands 80 dB below the loudest come near float32's own rounding: transformers' fp32
    # version differs by 2e-5 from this one, its float64.
    for clip, most in zip(voices(3.0, 1.234, 0.5, 30.0), (1e-5, 1e-5, 1e-5, 2.5e-5), strict=True):
        padded = np.pad(clip, (0, 480_000 - len(clip))).astype(np.float64)
        theirs = extractor._np_extract_fbank_features(padded[None], "cpu")[0]
        ours, valid = WhisperLogMel(n_mels, "30s")(torch.from_numpy(clip)[None])
        assert valid is None
        assert np.abs(ours[0].numpy() - theirs).max() < most


def test_a_clip_has_the_first_frames_of_its_spectrogram_at_30_s() -> None:
    for clip in voices(3.0, 1.234):
        samples = torch.from_numpy(clip)[None]
        alone, padded = WhisperLogMel(80)(samples)[0], WhisperLogMel(80, "30s")(samples)[0]
        assert (alone - padded[..., : alone.shape[2]]).abs().max() < 1e-5


def test_a_spectrogram_stays_exact_in_half_precision() -> None:
    (clip,) = voices(1.0)
    exact, _ = WhisperLogMel(80)(torch.from_numpy(clip)[None])
    other, _ = WhisperLogMel(80).to(torch.bfloat16)(torch.from_numpy(clip)[None])
    assert torch.equal(exact, other)


@pytest.mark.parametrize("backend", BACKENDS)
def test_at_30_s_the_states_are_those_of_transformers(
    tiny_whisper: Path, backend: BackendName
) -> None:
    clips = voices(3.0, 1.3, 30.0)
    encoder = load_encoder(str(tiny_whisper), "all", backend=backend, context="30s")
    wanted = states_of_transformers(tiny_whisper, clips)
    for clip, ours, theirs in zip(clips, encoder.encode(clips), wanted, strict=True):
        n_frames = encoder.n_frames(len(clip))  # the clip's own; what follows is silence
        for layer in range(4):
            assert deviation(ours[layer], theirs[layer, :n_frames]) < 1e-5, layer


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_clip_is_the_same_in_a_batch_and_alone(tiny_whisper: Path, backend: BackendName) -> None:
    clips = voices(3.0, 1.234, 0.7, 2.5001, 0.025)
    encoder = load_encoder(str(tiny_whisper), "all", backend=backend)
    for clip, batched in zip(clips, encoder.encode(clips), strict=True):
        (alone,) = encoder.encode([clip])
        assert batched.shape == (4, encoder.n_frames(len(clip)), 32)
        assert deviation(batched, alone) < 1e-5


@pytest.mark.parametrize(("seconds", "frames"), [(3.0, 150), (0.025, 1), (0.03, 2), (30.0, 1500)])
def test_a_frame_is_20_ms(tiny_whisper: Path, seconds: float, frames: int) -> None:
    assert WhisperStates.n_frames(round(seconds * 16_000)) == frames
    encoder = load_encoder(str(tiny_whisper), 0, backend="torch")
    assert encoder.encode(voices(seconds))[0].shape == (1, frames, 32)


def test_each_layer_is_the_same_alone_and_among_all(tiny_whisper: Path) -> None:
    clips = voices(1.0)
    (every,) = load_encoder(str(tiny_whisper), "all", backend="torch").encode(clips)
    for layer in range(4):
        (one,) = load_encoder(str(tiny_whisper), layer, backend="torch").encode(clips)
        assert np.array_equal(one[0], every[layer])


def test_a_long_clip_is_encoded_in_pieces(tiny_whisper: Path) -> None:
    encoder = load_encoder(str(tiny_whisper), 2, backend="torch")
    (clip,) = voices(61.0)
    (states,) = encoder.encode([clip])
    assert states.shape == (1, 3050, 32) == (1, encoder.n_frames(len(clip)), 32)
    (first,) = encoder.encode([clip[:480_000]])
    assert deviation(states[:, :1500], first) < 1e-5
    # A rest too short to be encoded by itself takes a little of the piece before.
    for n in (480_001, 480_399, 960_010):
        (states,) = encoder.encode([clip[:n]])
        assert states.shape[1] == encoder.n_frames(n)
    with pytest.raises(EncoderError, match=r"a clip of 61\.0 s is longer than a context of 30 s"):
        load_encoder(str(tiny_whisper), 2, backend="torch", context="30s").encode([clip])


def test_the_decoder_is_not_even_built(tiny_whisper: Path) -> None:
    encoder = load_encoder(str(tiny_whisper), backend="torch")
    assert isinstance(encoder, Encoder)
    assert encoder.layer == 1  # of three, as of every encoder the middle one
    assert not any("decoder" in name for name, _ in encoder.network.named_parameters())


def test_tensors_of_the_encoder_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = tiny_whisper_checkpoint(tmp_path / "w")
    tensors = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if "encoder" not in k or "decoder" in k}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"is incomplete: it lacks .* tensors"):
        load_encoder(str(folder))


def test_other_mel_bands_than_the_weights_are_refused(tmp_path: Path) -> None:
    folder = tiny_whisper_checkpoint(tmp_path / "w")
    transformers.WhisperFeatureExtractor(feature_size=128).save_pretrained(folder)
    with pytest.raises(EncoderError, match=r"has 128 mel bands, its config\.json 80"):
        load_encoder(str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_mel_bins": 128}))
    with pytest.raises(EncoderError, match="not a loadable encoder folder"):
        load_encoder(str(folder))


def test_english_weights_under_a_multilingual_configuration_are_refused(tmp_path: Path) -> None:
    folder = tiny_whisper_checkpoint(tmp_path / "w")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 51_865}))
    said = r"51865 tokens \(multilingual\), its weights are of one of 64 \(English-only\)"
    with pytest.raises(EncoderError, match=said):
        load_encoder(str(folder))


def test_files_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = tiny_whisper_checkpoint(tmp_path / "w")
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    with pytest.raises(EncoderError, match="a Wav2Vec2FeatureExtractor, isn't Whisper's"):
        load_encoder(str(folder))
    (folder / "preprocessor_config.json").unlink()  # then Whisper's own settings are taken
    assert load_encoder(str(folder)).n_layers == 3
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_source_positions": 750}))
    with pytest.raises(EncoderError, match="not a loadable encoder folder"):
        load_encoder(str(folder))


def test_what_whisper_does_not_have_is_said(tiny_whisper: Path, tiny: str) -> None:
    with pytest.raises(EncoderError, match="Whisper has no CTC head"):
        load_encoder(str(tiny_whisper), "logits")
    with pytest.raises(EncoderError, match="no layer 4; it has 0 to 3"):
        load_encoder(str(tiny_whisper), 4)
    with pytest.raises(EncoderError, match="--context 30s is for Whisper"):
        load_encoder(tiny, context="30s")
    with pytest.raises(EncoderError, match="no context '10ms'; there are clip and 30s"):
        load_encoder(str(tiny_whisper), context="10ms")  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
def test_real_weights(shared: Path, backend: BackendName) -> None:
    folder = shared / "encoders" / "whisper-tiny.en"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    clips = voices(1.1)
    theirs = states_of_transformers(folder, clips)
    ours = load_encoder(str(folder), "all", backend=backend, context="30s").encode(clips)
    for a, b in zip(ours, theirs, strict=True):
        for layer in range(5):
            assert deviation(a[layer], b[layer, : a.shape[1]]) < 1e-5
