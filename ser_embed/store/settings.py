"""What a clip's features depend on, and the key of their store."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ser_embed.audio import FillRule, Resampler
from ser_embed.encoders import Layer, Norm, Pool

__all__ = ["LAYOUT", "SCHEMA", "FeatureSettings"]


SCHEMA = 2  # version of what features mean; part of every key
LAYOUT = 3  # version of how a file holds them: 2 had one padded chunk a clip


@dataclass(frozen=True)
class FeatureSettings:
    """Everything that a clip's features depend on besides its audio: what keys a store.

    Attributes:
        encoder: Name, hub id or folder that the encoder was asked for by.
        weights: SHA-256 of the encoder's weights.
        configuration: SHA-256 of what else makes the encoder's output: of its configuration, and
            whether its feature extractor scales the input; "" where that isn't known, as in
            files made before it was kept.
        layer: Hidden layer, `all` layers or CTC `logits`.
        pool: `mean` keeps each layer's mean over time instead of its frames, `stats` its mean
            and standard deviation.
        norm: Min-max to [-1, 1] per `frame` (the paper's) or per `clip`, or `none`.
        trim: Whether silence before and after the speech is cut first.
        seconds: Clip length in seconds; 0 for whole clips.
        fill: How shorter clips are filled.
        dtype: Type that features are stored in.
        precision: Arithmetic of the encoder.
        seed: Seed of the random fill and of untrained weights. It matters where the fill draws;
            what it makes of weights is in their hash.
        resampler: Resampling method.
        schema: Version of what features mean.
        context: What Whisper sees: the `clip` alone, or `30s`.
    """

    encoder: str
    weights: str
    layer: Layer
    pool: Pool
    norm: Norm
    trim: bool
    seconds: float
    fill: FillRule
    dtype: Literal["float16", "float32"]
    precision: Literal["fp32", "bf16"]
    seed: int
    resampler: str = Resampler.METHOD
    schema: int = SCHEMA
    configuration: str = ""
    context: Literal["clip", "30s"] = "clip"

    @property
    def _relevant(self) -> dict[str, Any]:
        """The settings that can change a feature, the others as if at their default."""
        fields = asdict(self)
        del fields["encoder"]  # a name or a path; the weights are what counts
        fields["seconds"] = float(self.seconds)  # 3 and 3.0 are one setting
        if self.seconds <= 0:  # whole clips are not filled
            fields["fill"] = "none"
        if fields["fill"] != "sample":  # the one that draws
            fields["seed"] = 0
        return fields

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits; any setting that can change a feature changes them."""
        fields = self._relevant
        if not self.configuration:
            del fields["configuration"]  # the key of files made before it was kept
        if self.context == "clip":
            del fields["context"]  # likewise; every encoder but Whisper has this one
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def path(self, folder: Path, corpus: str) -> Path:
        """Return where a corpus's store lies: `<folder>/<corpus>-<encoder>-<key>.h5`."""
        encoder = "".join(c if c.isalnum() else "-" for c in Path(self.encoder).name.lower())
        return folder / f"{corpus}-{encoder}-{self.key}.h5"

    def differences(self, other: "FeatureSettings") -> list[str]:
        """Return `field: mine against theirs` for each field that matters and differs.

        A configuration that isn't known differs from none.
        """
        mine, theirs = self._relevant, other._relevant
        if not (self.configuration and other.configuration):
            mine["configuration"] = theirs["configuration"]
        return [
            f"{name}: {mine[name]!r} against {theirs[name]!r}"
            for name in mine if mine[name] != theirs[name]
        ]  # fmt: skip
