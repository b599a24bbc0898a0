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
    """An encoder that has a name.

    Attributes:
        source: `bundled` (a folder that ships), `hub` (Hugging Face), `seeded` (untrained
            weights drawn from a seed), `torchaudio` (one of its bundles) or `spectrum` (no
            network at all).
        location: Folder name, hub id, configuration name or bundle name.
        family: Whose architecture it is.
        parameters: Millions of them; of a Whisper its encoder's.
        layers: Transformer layers.
        licence: Licence of the weights.
        about: One line for people.
        file: Name of the weights' file, of a torchaudio bundle.
    """

    source: Literal["bundled", "hub", "seeded", "torchaudio", "spectrum"]
    location: str
    family: str
    parameters: float
    layers: int
    licence: str
    about: str
    file: str = ""


def _hub(
    location: str, family: str, parameters: float, layers: int, licence: str, about: str
) -> EncoderSpec:
    return EncoderSpec("hub", location, family, parameters, layers, licence, about)


ENCODERS: dict[str, EncoderSpec] = {
    "mini": EncoderSpec(
        "bundled", "mini", "wav2vec2", 5.6, 6, "CC BY-NC-SA 4.0", "ships with the project"),
    "mini-open": EncoderSpec(
        "bundled", "mini-open", "wav2vec2", 5.6, 6, "CC BY 4.0", "without nEMO, for any use"),
    "random-mini": EncoderSpec(
        "seeded", "mini", "wav2vec2", 5.6, 6, "MIT", "control: mini's shape, untrained"),
    "random-base": EncoderSpec(
        "seeded", "base", "wav2vec2", 94.4, 12, "MIT", "control: base's shape, untrained"),
    "wav2vec2-base": _hub(
        "facebook/wav2vec2-base", "wav2vec2", 94.4, 12, "Apache-2.0", "960 h, self-supervised"),
    "wav2vec2-base-960h": _hub(
        "facebook/wav2vec2-base-960h", "wav2vec2", 94.4, 12, "Apache-2.0", "ASR; the paper's"),
    "wav2vec2-large": _hub(
        "facebook/wav2vec2-large", "wav2vec2", 315.4, 24, "Apache-2.0", "960 h, self-supervised"),
    "wav2vec2-large-960h-lv60-self": _hub(
        "facebook/wav2vec2-large-960h-lv60-self", "wav2vec2", 315.4, 24, "Apache-2.0",
        "fine-tuned for ASR"),
    "xlsr-53": _hub(
        "facebook/wav2vec2-large-xlsr-53", "wav2vec2", 315.4, 24, "Apache-2.0", "53 languages"),
    "xlsr-53-english": _hub(
        "jonatasgrosman/wav2vec2-large-xlsr-53-english", "wav2vec2", 315.4, 24, "Apache-2.0",
        "fine-tuned for English ASR"),
    "hubert-base": _hub(
        "facebook/hubert-base-ls960", "hubert", 94.4, 12, "Apache-2.0", "960 h"),
    "hubert-large": _hub(
        "facebook/hubert-large-ll60k", "hubert", 315.4, 24, "Apache-2.0", "60 kh"),
    "distilhubert": _hub(
        "ntu-spml/distilhubert", "hubert", 23.5, 2, "Apache-2.0", "distilled from hubert-base"),
    "wavlm-base-plus": _hub(
        "microsoft/wavlm-base-plus", "wavlm", 94.4, 12, "CC BY-SA 3.0", "94 kh"),
    "wavlm-large": _hub(
        "microsoft/wavlm-large", "wavlm", 315.5, 24, "CC BY-SA 3.0", "94 kh"),
    "data2vec-base": _hub(
        "facebook/data2vec-audio-base", "data2vec-audio", 93.2, 12, "Apache-2.0", "960 h"),
    "data2vec-large": _hub(
        "facebook/data2vec-audio-large", "data2vec-audio", 313.3, 24, "Apache-2.0", "960 h"),
    "whisper-tiny": _hub("openai/whisper-tiny", "whisper", 8.2, 4, "MIT", "99 languages"),
    "whisper-tiny.en": _hub("openai/whisper-tiny.en", "whisper", 8.2, 4, "MIT", "English"),
    "whisper-base": _hub("openai/whisper-base", "whisper", 20.6, 6, "MIT", "99 languages"),
    "whisper-base.en": _hub("openai/whisper-base.en", "whisper", 20.6, 6, "MIT", "English"),
    "whisper-small": _hub("openai/whisper-small", "whisper", 88.2, 12, "MIT", "99 languages"),
    "whisper-medium": _hub("openai/whisper-medium", "whisper", 307.2, 24, "MIT", "99 languages"),
    "whisper-large-v3": _hub(
        "openai/whisper-large-v3", "whisper", 637.0, 32, "MIT", "99 languages"),
    "whisper-large-v3-turbo": _hub(
        "openai/whisper-large-v3-turbo", "whisper", 637.0, 32, "MIT", "99 languages"),
    "torchaudio-base-960h": EncoderSpec(
        "torchaudio", "WAV2VEC2_ASR_BASE_960H", "wav2vec2", 94.4, 12, "MIT",
        "the paper's weights through torchaudio (its CTC head now keeps 29 of 32 outputs)",
        "wav2vec2_fairseq_base_ls960_asr_ls960.pth"),
    "log-mel": EncoderSpec(
        "spectrum", "", "spectrogram", 0.0, 0, "MIT", "64 mel bands, for the head cnn"),
}  # fmt: skip
"""The encoders that have a name."""
