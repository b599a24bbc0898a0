"""Labels that follow a voice, from a microphone, a file that is played, or a browser's blocks.

An `Engine` owns a ring of sound: a `Microphone` or a `FilePlayer` fills it from its own thread
with float32 samples at any rate, and the engine gives labelled windows and segments (seconds from
the start, probabilities), a log and a recording. Its `Session` is what a screen shows of it, and
its size doesn't depend on how long it lasts. `stop_on_signals` ends a program in good order.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.live.engine import Engine, Session
    from ser_embed.live.microphone import Microphone
    from ser_embed.live.ring import FilePlayer
    from ser_embed.live.terminal import stop_on_signals
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "engine": ["Engine", "Session"],
            "microphone": ["Microphone"],
            "ring": ["FilePlayer"],
            "terminal": ["stop_on_signals"],
        },
    )

__all__ = ["Engine", "FilePlayer", "Microphone", "Session", "stop_on_signals"]
