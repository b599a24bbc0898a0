"""The libraries that decode: soundfile, and PyAV (extra `media`) for what soundfile doesn't know.

Headers lie: each kind of file is asked for its length in the way that finds out.
"""

import contextlib
import io
import mmap
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soundfile

from ser_embed.audio.constants import MEDIA_ENDINGS
from ser_embed.audio.sounds import Sound, read_away
from ser_embed.errors import AudioError

if TYPE_CHECKING:
    from ser_embed.audio.media import MediaSound

__all__ = ["open_sound"]

_RATES = (1_000, 384_000)  # samples per second that a file may have: any other is a broken header
_LFS_MARK = b"version https://git-lfs"
_UNKNOWN_LENGTH = 2**40  # samples; libsndfile's value for a length that the header leaves out
_MAX_DENSITY = 8192  # samples a byte; the longest silence in FLAC takes a byte for 5,500


@contextlib.contextmanager
def open_sound(path: Path, file: BinaryIO) -> Iterator[Sound]:
    """Open a file for decoding, by what is in it rather than by its ending.

    Args:
        path: Its name, for messages.
        file: The open file, at its start.

    Raises:
        AudioError: It isn't audio, its header can't be true, or decoding fails; also while the
            sound is being read.
    """
    start = file.read(64)
    if not start:
        raise AudioError(f"{path}: the file is empty")
    if start.startswith(_LFS_MARK):
        raise AudioError(
            f"{path}: a git-lfs pointer, not audio; run 'git lfs pull' where the corpus was cloned"
        )
    file.seek(0)
    try:
        with contextlib.ExitStack() as stack:
            try:
                sound: Sound = _LibSound(stack, path, file)
            except soundfile.LibsndfileError as error:
                if not _is_media(path, start, str(error)):
                    raise
                sound = _open_media(stack, path, file)
            if not _RATES[0] <= sound.rate <= _RATES[1]:
                raise AudioError(f"{path}: the header says {sound.rate} Hz, which no recording has")
            yield sound
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
        raise AudioError(f"{path}: can't be decoded ({reason}); is it really audio?") from error


def _is_media(path: Path, start: bytes, fault: str) -> bool:
    """Say whether PyAV may know a file that soundfile doesn't: by its ending, by its start."""
    return (
        path.suffix.lower() in MEDIA_ENDINGS
        or "unsupported encoding" in fault
        or start[4:8] == b"ftyp"
        or start.startswith((b"\x1a\x45\xdf\xa3", b"#!AMR", b"\x30\x26\xb2\x75", b"FLV"))
        or (start[:1] == b"\xff" and start[1:2] in (b"\xf0", b"\xf1", b"\xf8", b"\xf9"))
    )


def _open_media(stack: contextlib.ExitStack, path: Path, file: BinaryIO) -> "MediaSound":
    try:
        from ser_embed.audio.media import MediaSound
    except ImportError as error:
        raise AudioError(
            f"{path}: soundfile doesn't decode this format, PyAV may: "
            "pip install 'ser_embed[media]' (or convert it to .wav, for instance with ffmpeg)"
        ) from error
    file.seek(0)
    return MediaSound(stack, path, file)


class _LibSound:
    """A file that soundfile decodes."""

    def __init__(self, stack: contextlib.ExitStack, path: Path, file: BinaryIO) -> None:
        self._file = stack.enter_context(soundfile.SoundFile(file))
        kind, size = self._file.format, os.fstat(file.fileno()).st_size
        mended = None
        if kind == "WAV" and not self._file.frames:
            mended = _unfinished_wav(file, size)
        elif kind in ("OGG", "OPUS"):
            _check_last_page(path, file, size)
        elif kind == "MP3" and size:
            mended = _untold_mp3(file, self._file.frames)
        if mended:
            self._file = stack.enter_context(soundfile.SoundFile(mended))
        self.rate, self.channels = self._file.samplerate, self._file.channels
        self.stated = _stated_samples(self._file)
        if self.stated is None:  # soundfile seeks after every block, which libFLAC then can't
            self._file.seekable = lambda: False
        if self.stated is not None and self.stated > size * _MAX_DENSITY:
            raise AudioError(
                f"{path}: the header promises {self.stated / self.rate / 3600:,.0f} h, which a "
                f"file of {size:,} bytes can't hold; copy or download it again"
            )

    def skip(self, n: int) -> int:
        done = 0
        if n > self.rate and self._file.seekable():  # a second before, as codecs carry state
            done = self._file.seek(min(n - self.rate, self._file.frames))
        return done + read_away(self, n - done)

    def read(self, n: int) -> np.ndarray:
        return self._file.read(n, dtype="float32", always_2d=True)


def _stated_samples(sound: soundfile.SoundFile) -> int | None:
    """Return the length in samples that the header states, None if it states none.

    libsndfile gives a file that was cut short the length of what is left, and states the
    header's in its log alone.
    """
    if sound.frames >= _UNKNOWN_LENGTH:
        return None
    log = sound.extra_info
    if frames := re.search(r"does not match value from 'ds64' chunk of (\d+)", log):
        return int(frames[1])
    if frames := re.search(r"Frame count read from 'COMM' chunk \((\d+)\)", log):
        return max(sound.frames, int(frames[1]))
    cut = re.search(
        r"^\s*(?:data|Data Size|SSND|riff)\s*: (\d+) \(should be (\d+)\)", log, re.MULTILINE
    )
    # A program that writes into a pipe can't know the length: it states about 2 or 4 GB.
    if cut is None or int(cut[1]) >= 2**31 - 2**16 or cut[2] == "0":
        return sound.frames
    return max(sound.frames, sound.frames * int(cut[1]) // int(cut[2]))


class _NewHead(io.RawIOBase):
    """An open file whose bytes before `start` are replaced."""

    def __init__(self, head: bytes, file: BinaryIO, start: int) -> None:
        self._head, self._rest, self._start, self._at = head, file, start, 0
        self._size = len(head) + os.fstat(file.fileno()).st_size - start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        content = self._head[self._at : self._at + len(buffer)]
        if not content:
            self._rest.seek(self._start + self._at - len(self._head))
            content = self._rest.read(len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def _unfinished_wav(file: BinaryIO, size: int) -> _NewHead | None:
    """Return a wav that states no samples with the length of what is behind its header.

    A recorder that is switched off never comes back to state it. None if it is really empty:
    nothing but whole chunks behind.
    """
    file.seek(0)
    head = file.read(1 << 16)
    at, data = 12, 0
    while at + 8 <= min(len(head), size):
        length = struct.unpack_from("<I", head, at + 4)[0]
        if head[at : at + 4] == b"data" and not length and not data:
            data = at + 8
        elif data and not head[at : at + 4].isalnum() and head[at : at + 4].strip(b"\0 "):
            break
        at += 8 + length + length % 2
        if at == size:
            return None
    rest = size - data
    if not data or rest <= 0:
        return None
    return _NewHead(head[: data - 4] + struct.pack("<I", rest), file, data)


def _check_last_page(path: Path, file: BinaryIO, size: int) -> None:
    """Refuse an Ogg file that doesn't end with a whole page that is marked as the last."""
    where = file.tell()
    file.seek(max(0, size - (1 << 17)))  # a page has at most 65,307 bytes
    end = file.read()
    file.seek(where)
    at = end.rfind(b"OggS")
    while at > 0 and at + 27 <= len(end) and end[at + 4]:  # chance in the middle of a packet
        at = end.rfind(b"OggS", 0, at)
    whole = at >= 0 and at + 27 <= len(end)
    if whole:
        table = end[at + 27 : at + 27 + end[at + 26]]
        whole = len(table) == end[at + 26] and at + 27 + len(table) + sum(table) <= len(end)
    if not whole or not end[at + 5] & 4:
        raise AudioError(
            f"{path}: cut short: it ends without the page that closes an Ogg stream; copy or "
            "download it again"
        )


_MP3_KILOBITS = {  # by version (MPEG 1, others) and index in a frame's header, layer III
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_RATES = {0: (11_025, 12_000, 8_000), 2: (22_050, 24_000, 16_000), 3: (44_100, 48_000, 32_000)}


def _mp3_frame(head: bytes) -> tuple[int, int, int]:
    """Return length in bytes, samples, and bytes of side information of a layer III frame.

    All are 0 if the four bytes begin none.
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0, 0, 0
    version, index, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or index in (0, 15) or rate == 3:
        return 0, 0, 0
    first, mono = version == 3, head[3] >> 6 == 3
    bits = (144 if first else 72) * _MP3_KILOBITS[first][index] * 1000
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return bits // _MP3_RATES[version][rate] + (head[2] >> 1 & 1), 1152 if first else 576, side


def _untold_mp3(file: BinaryIO, told: int) -> _NewHead | None:
    """Return an MP3 with a header that counts its frames, if its own doesn't, or counts fewer.

    Without one (Xing's), libmpg123 guesses the length from the first frame's bit rate, and
    libsndfile reads no further.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = 0
        if content[:3] == b"ID3" and len(content) > 10:
            b = content[6:10]
            at = 10 + (b[0] << 21 | b[1] << 14 | b[2] << 7 | b[3]) + 10 * (content[5] >> 4 & 1)
        at = first = _next_frame(content, at)
        length, samples, side = _mp3_frame(content[first : first + 4])
        if not length:
            return None
        mark = content[first + 4 + side : first + 8 + side]
        tagged = mark in (b"Xing", b"Info") or content[first + 36 : first + 40] == b"VBRI"
        count = -1 if tagged else 0
        while length:
            if at + length > len(content):
                break  # its last frame isn't whole
            count, at = count + 1, at + length
            length = _mp3_frame(content[at : at + 4])[0]
            if not length and content[at : at + 3] not in (b"", b"TAG", b"APE"):
                at = _next_frame(content, at)  # something lies between two frames
                length = _mp3_frame(content[at : at + 4])[0]
        if tagged and count * samples <= told + 4 * samples:
            return None
        head = bytearray(content[first : first + 4])
    # A frame of a high bit rate, empty but for the count.
    head[2] = head[2] & 0x0D | 0xC0
    head[1] |= 1  # without a check sum
    frame = bytearray(_mp3_frame(bytes(head))[0])
    frame[:4] = head
    struct.pack_into(">4sII", frame, 4 + side, b"Xing", 1, count)
    return _NewHead(bytes(frame), file, first)


def _next_frame(content: mmap.mmap, at: int) -> int:
    """Return where the next frame of an MP3 begins that another one follows, or the file's end."""
    while (at := content.find(b"\xff", at)) >= 0:
        length = _mp3_frame(content[at : at + 4])[0]
        if length and (
            at + length >= len(content) or _mp3_frame(content[at + length : at + length + 4])[0]
        ):
            return at
        at += 1
    return len(content)
