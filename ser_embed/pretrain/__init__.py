"""Small encoders, pre-trained on unlabelled speech.

`pretrain_encoder` takes folders of audio, as its `PretrainConfig` says, and writes a folder with a
wav2vec2 in transformers' format (float16), which `--encoder FOLDER` loads.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.pretrain.options import PretrainConfig
    from ser_embed.pretrain.pretraining import pretrain_encoder
else:
    __getattr__ = lazy_names(
        __name__, {"options": ["PretrainConfig"], "pretraining": ["pretrain_encoder"]}
    )

__all__ = ["PretrainConfig", "pretrain_encoder"]
