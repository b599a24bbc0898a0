"""What a live session leaves behind: a log in JSON lines, and its sound as a wav."""

import json
import threading
import wave
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ser_embed.audio import SAMPLE_RATE
from ser_embed.errors import AudioError

__all__ = ["Log", "Recorder"]

_MOST_BYTES = 2**32 - 2**16  # a wav's header counts them in 32 bits: 37 h


class Log:
    """One JSON object a line, each with `time` (ISO 8601) and `event`; appends to a file.

    A line is on its way to the disk when `write` returns. Threads may share it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, event: str, **facts: Any) -> None:
        """Append a line."""
        time = datetime.now().astimezone().isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "event": event, **facts}, ensure_ascii=False)
        with self._lock:
            if not self._file.closed:
                self._file.write(line + "\n")
                self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


class Recorder:
    """Writes mono 16 kHz, 16 bits; the header is right after every write, whatever happens next.

    Attributes:
        full: Whether the file has as much as a wav can hold; what comes then is not recorded.

    Raises:
        AudioError: The file exists.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("xb")
        except FileExistsError as error:
            raise AudioError(f"{path}: exists; name a new file to record to") from error
        self.path, self.full = path, False
        self._wave = wave.open(self._file, "wb")  # noqa: SIM115
        self._wave.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))

    def write(self, samples: np.ndarray) -> None:
        """Add mono float32 samples of shape (n,), full scale at 1."""
        self.full = self.full or self._wave.tell() * 2 + len(samples) * 2 > _MOST_BYTES
        if self.full:
            return
        scaled = np.clip(np.round(samples * 32768.0), -32768, 32767)
        self._wave.writeframes(np.nan_to_num(scaled).astype("<i2").tobytes())
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._wave.close()
        self._file.close()
