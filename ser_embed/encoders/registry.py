"""The encoders that have a name, and the choices that an encoder leaves: no library is imported."""

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "ENCODERS", "BackendName", "Context", "EncoderSpec", "Layer", "Norm", "Pool", "Precision",
]  # fmt: skip

Layer = int | Literal["all", "logits"]
Norm = Literal["frame", "clip", "none"]
Pool = Literal["none", "mean", "stats"]
Context = Literal["clip", "30s"]
BackendName = Literal["auto", "torch", "openvino"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class EncoderSpec:
    """Where an encoder comes from.

    Attributes:
        source: `bundled` (a folder that ships), `hub` (Hugging Face), `seeded` (untrained
            weights drawn from a seed), `torchaudio` (one of its bundles) or `spectrum` (no
            network at all).
        location: Folder name, hub id, configuration name or bundle name.
        licence: Licence of the weights.
        about: One line for people.
    """

    source: Literal["bundled", "hub", "seeded", "torchaudio", "spectrum"]
    location: str
    licence: str
    about: str


ENCODERS: dict[str, EncoderSpec] = {
    "mini": EncoderSpec(
        "bundled", "mini", "CC BY-NC-SA 4.0", "5.6 M, ships with the project, no network"),
    "mini-open": EncoderSpec(
        "bundled", "mini-open", "CC BY 4.0", "the same without nEMO, for any use"),
    "random-mini": EncoderSpec("seeded", "mini", "MIT", "control: mini's shape, untrained"),
    "random-base": EncoderSpec("seeded", "base", "MIT", "control: base's shape, untrained"),
    "wav2vec2-base": EncoderSpec(
        "hub", "facebook/wav2vec2-base", "Apache-2.0", "95 M, 960 h, self-supervised"),
    "wav2vec2-base-960h": EncoderSpec(
        "hub", "facebook/wav2vec2-base-960h", "Apache-2.0", "95 M, ASR; the paper's"),
    "wav2vec2-large": EncoderSpec(
        "hub", "facebook/wav2vec2-large", "Apache-2.0", "317 M, 960 h, self-supervised"),
    "wav2vec2-large-960h-lv60-self": EncoderSpec(
        "hub", "facebook/wav2vec2-large-960h-lv60-self", "Apache-2.0", "317 M, fine-tuned for ASR"),
    "xlsr-53": EncoderSpec(
        "hub", "facebook/wav2vec2-large-xlsr-53", "Apache-2.0", "317 M, 53 languages"),
    "xlsr-53-english": EncoderSpec(
        "hub", "jonatasgrosman/wav2vec2-large-xlsr-53-english", "Apache-2.0",
        "317 M, fine-tuned for English ASR"),
    "hubert-base": EncoderSpec("hub", "facebook/hubert-base-ls960", "Apache-2.0", "95 M, 960 h"),
    "hubert-large": EncoderSpec(
        "hub", "facebook/hubert-large-ll60k", "Apache-2.0", "317 M, 60 kh"),
    "wavlm-base-plus": EncoderSpec(
        "hub", "microsoft/wavlm-base-plus", "CC BY-SA 3.0", "95 M, 94 kh"),
    "wavlm-large": EncoderSpec("hub", "microsoft/wavlm-large", "CC BY-SA 3.0", "317 M, 94 kh"),
    "whisper-tiny": EncoderSpec("hub", "openai/whisper-tiny", "MIT", "8 M, 99 languages"),
    "whisper-tiny.en": EncoderSpec("hub", "openai/whisper-tiny.en", "MIT", "8 M, English"),
    "whisper-base": EncoderSpec("hub", "openai/whisper-base", "MIT", "21 M, 99 languages"),
    "whisper-base.en": EncoderSpec("hub", "openai/whisper-base.en", "MIT", "21 M, English"),
    "whisper-small": EncoderSpec("hub", "openai/whisper-small", "MIT", "88 M, 99 languages"),
    "whisper-medium": EncoderSpec("hub", "openai/whisper-medium", "MIT", "307 M, 99 languages"),
    "whisper-large-v3": EncoderSpec("hub", "openai/whisper-large-v3", "MIT", "637 M, 99 languages"),
    "whisper-large-v3-turbo": EncoderSpec(
        "hub", "openai/whisper-large-v3-turbo", "MIT", "637 M, 99 languages"),
    "torchaudio-base-960h": EncoderSpec(
        "torchaudio", "WAV2VEC2_ASR_BASE_960H", "MIT",
        "the paper's weights through torchaudio (its CTC head now keeps 29 of 32 outputs)"),
    "log-mel": EncoderSpec(
        "spectrum", "", "MIT", "no network: a spectrogram of 64 mel bands, for the head cnn"),
}  # fmt: skip
"""The encoders that have a name."""
