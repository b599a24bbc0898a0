"""The errors that ser_embed raises on purpose.

Each one carries a sentence for the person who reads it: what was wrong, where, and what to do.
The commands print that sentence and exit with status 1; nothing else of theirs is a traceback.
"""

__all__ = [
    "AudioError",
    "ClusterError",
    "CorpusError",
    "DeviceError",
    "DownloadError",
    "EncoderError",
    "ExportError",
    "HeadError",
    "LabelError",
    "MissingExtra",
    "OutOfMemory",
    "SerEmbedError",
    "SplitError",
    "StoreError",
    "UnknownCorpus",
    "WebError",
]


class SerEmbedError(Exception):
    """Base of every error raised on purpose by this package."""

    status = 1  # what a command ends with: 1 error, 2 wrong usage


class LabelError(SerEmbedError):
    """An emotion that no scheme names, or a mapping file that can't be used."""


class CorpusError(SerEmbedError):
    """A folder, file name or CSV that doesn't describe a corpus."""


class UnknownCorpus(CorpusError):
    """A corpus's name that is none."""

    status = 2


class AudioError(SerEmbedError):
    """A clip that can't be used: unreadable, too short, silent, not finite."""


class EncoderError(SerEmbedError):
    """An encoder that can't be found, loaded or asked for that layer."""


class OutOfMemory(EncoderError):
    """A batch that an encoder has no memory for, on the GPU or the host."""


class ExportError(SerEmbedError):
    """A classifier that can't be written in another format, or doesn't say there what it should."""


class StoreError(SerEmbedError):
    """A feature store that is missing, damaged, held by another process or of other settings."""


class SplitError(SerEmbedError):
    """A split that the clips at hand don't allow."""


class HeadError(SerEmbedError):
    """A run or head that is missing, damaged or doesn't fit."""


class DeviceError(SerEmbedError):
    """No microphone, or one that can't be opened."""


class DownloadError(SerEmbedError):
    """A transfer that failed, or an archive whose checksum or contents can't be trusted."""


class WebError(SerEmbedError):
    """The page can't be served at that address."""


class ClusterError(SerEmbedError):
    """A Ray cluster that can't be reached, or that loses its workers again and again."""


class MissingExtra(SerEmbedError):
    """An optional dependency that isn't installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'ser_embed[{extra}]'")
