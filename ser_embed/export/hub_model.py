"""What transformers runs of a folder that `hub.py` writes: configuration, features, model.

This file goes into the folder with the modules it imports, so that whoever loads it needs
transformers, torch and numpy alone, and runs the very networks and the very preprocessing of
training.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ser_embed.audio import SAMPLE_RATE, Clip
from ser_embed.encoders import Graph
from ser_embed.heads import assemble

__all__ = ["SerEmbedConfig", "SerEmbedFeatureExtractor", "SerEmbedForAudioClassification"]


class SerEmbedConfig(transformers.PretrainedConfig):
    """What the model is built from.

    Args:
        encoder: The encoder's own configuration, with its `model_type`.
        features: The `features` of the heads' card.
        scales_input: Whether each clip is scaled to zero mean and unit variance.
        head: Class name, `shape` of one clip's features, `pooled` and `members`.
        temperatures: One a head; as many heads are averaged.
    """

    model_type = "ser_embed"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        features: dict[str, Any] | None = None,
        scales_input: bool = True,
        head: dict[str, Any] | None = None,
        temperatures: Sequence[float] = (),
        **kwargs: Any,
    ) -> None:
        self.encoder, self.features, self.scales_input = encoder or {}, features or {}, scales_input
        self.head, self.temperatures = head or {}, list(temperatures)
        super().__init__(**kwargs)


class SerEmbedFeatureExtractor(SequenceFeatureExtractor):
    """Clips at 16 kHz trimmed, cut or filled as in training, and padded to a batch with a mask.

    Args:
        seconds: Clip length; 0 for whole clips.
        fill: How shorter clips are filled.
        trim: Whether silence before and after the speech is cut first.
        seed: Seed of the random fill, next to the clip's own samples.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012

    def __init__(
        self, seconds: float = 3.0, fill: Any = "none", trim: bool = True, seed: int = 0,
        feature_size: int = 1, sampling_rate: int = SAMPLE_RATE, padding_value: float = 0.0,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value,
            **kwargs,
        )  # fmt: skip
        self.seconds, self.fill, self.trim, self.seed = seconds, fill, trim, seed

    def __call__(
        self, raw_speech: Any, sampling_rate: int | None = None, return_tensors: Any = None,
        padding: Any = True, **kwargs: Any,
    ) -> transformers.BatchFeature:  # fmt: skip
        """Prepare one clip (n,) or several.

        Raises:
            ValueError: Another rate than 16 kHz.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(f"samples at {sampling_rate} Hz; resample them to 16,000 Hz")
        several = isinstance(raw_speech, list | tuple) or np.ndim(raw_speech) == 2
        clips = [self._fit(clip) for clip in (raw_speech if several else [raw_speech])]
        return self.pad(
            transformers.BatchFeature({"input_values": clips}), padding=padding,
            return_attention_mask=True, return_tensors=return_tensors,
        )  # fmt: skip

    def _fit(self, clip: Any) -> np.ndarray:
        samples = np.asarray(clip, dtype=np.float32)
        cut = Clip.of(samples, self.seconds, self.trim)
        return cut.fit(self.seconds, self.fill, self.seed)


class SerEmbedForAudioClassification(transformers.PreTrainedModel):
    """Frozen encoder and heads: waveforms in, logits out whose softmax are the probabilities."""

    config_class = SerEmbedConfig
    main_input_name = "input_values"

    def __init__(self, config: SerEmbedConfig) -> None:
        super().__init__(config)
        build: Any = transformers.AutoModel.from_config
        if config.features["layer"] == "logits":
            build = transformers.AutoModelForCTC.from_config
        elif config.encoder["model_type"] == "whisper":
            build = WhisperEncoder
        own = transformers.AutoConfig.for_model(**config.encoder)
        heads = [self._head(len(config.id2label or ())) for _ in config.temperatures]
        self.graph = Graph(
            build(own), heads, config.temperatures, config.scales_input,
            config.features,
        )  # fmt: skip
        self.post_init()

    def _head(self, n_classes: int) -> torch.nn.Module:
        head = self.config.head
        return assemble(head["class"], tuple(head["shape"]), n_classes, head["pooled"],
                        members=head["members"])  # fmt: skip

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Leave weights as they are: all of them come from the checkpoint."""

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutput:
        """Return `logits` (B, C), log-probabilities, of waveforms (B, S).

        Args:
            input_values: float32 at 16 kHz, trimmed and cut, not scaled.
            attention_mask: 1 on each clip's own samples, 0 behind them. Clips of different
                lengths are run one by one: padding would change some encoders' states.
        """
        if attention_mask is None or bool(attention_mask.all()):
            probabilities = self.graph(input_values)
        else:
            lengths = attention_mask.sum(1).tolist()
            probabilities = torch.cat(
                [self.graph(clip[None, :n]) for clip, n in zip(input_values, lengths, strict=True)]
            )
        return SequenceClassifierOutput(logits=probabilities.clamp_min(1e-30).log())
