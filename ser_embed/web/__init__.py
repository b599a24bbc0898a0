"""The classifier as a page in the browser: files, the microphone, many files at once.

`Tabs` takes a `Classifier`, `SegmentSettings` and limits (minutes, files), and gives for each
upload or block of sound what is shown, as HTML. `build_app` makes a `gradio.Blocks` of them, to
be launched or mounted, by a `WebConfig`.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.web.options import WebConfig
    from ser_embed.web.server import build_app
    from ser_embed.web.tabs import Tabs
else:
    __getattr__ = lazy_names(
        __name__, {"options": ["WebConfig"], "server": ["build_app"], "tabs": ["Tabs"]}
    )

__all__ = ["Tabs", "WebConfig", "build_app"]
