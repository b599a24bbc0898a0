"""Fetching a file over HTTP: resumed where it broke off, bounded in size, checked before use.

pooch fetches and hashes; what it lacks is added here: going on with a partial file by a Range
request, and ending a transfer that grows beyond what was expected.
"""

import logging
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from urllib.parse import urlsplit

import pooch
from requests import Response, exceptions
from tqdm import tqdm

from ser_embed import __version__
from ser_embed.errors import DownloadError

__all__ = ["check_file", "fetch_file"]

log = logging.getLogger(__name__)

ATTEMPTS = 3  # at a transfer that breaks off, each going on from the last
_PAUSE = 1.0  # seconds between them
_CHUNK = 1 << 16
_PASSING = (416, 502, 503, 504)  # answers that may be another a second later


def fetch_file(
    url: str,
    file: Path,
    most: int,
    checksum: str = "",
    timeout: float = 30.0,
    hide: bool | None = None,
    stated: str = "the publisher states",
) -> None:
    """Fetch a file; it appears under its name only when it is whole and checked.

    What has come of a transfer that breaks off stays in `<file>.part`, and the next call goes on
    from there if the server can and the file is still the same.

    Args:
        url: http or https.
        file: Where it goes.
        most: Bytes that it may have at most.
        checksum: `md5:HEX` or `sha256:HEX` that it must have, "" for any.
        timeout: Seconds without a byte after which the transfer ends.
        hide: tqdm's `disable`.
        stated: Where the checksum is from, in words.

    Raises:
        DownloadError: It can't be fetched, is too large, or isn't what was expected.
        OSError: The disk can't be written.
    """
    part = file.with_name(file.name + ".part")
    file.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch_rest(url, part, most, timeout, hide, resume=bool(checksum))
            break
        except exceptions.RequestException as error:
            reason = _explain(error, url, timeout)
            if attempt == ATTEMPTS or not _broke_off(error):
                kept = _what_is_kept(part, can_resume=bool(checksum))
                raise DownloadError(f"{url}: {reason}{kept}") from error
            log.info("%s: %s; going on", url, reason)
            time.sleep(_PAUSE)
    try:
        if checksum:
            check_file(part, checksum, stated)
    except DownloadError:
        _forget(part)
        raise
    part.replace(file)
    _forget(part)


def check_file(file: Path, checksum: str, stated: str) -> None:
    """Compare a file with a checksum, `md5:HEX` or `sha256:HEX`.

    Raises:
        DownloadError: It has another, or it is no checksum; both digests are named.
    """
    algorithm, _, wanted = checksum.partition(":")
    if algorithm not in ("md5", "sha256"):
        raise DownloadError(f"{file}: {checksum[:200]!r} is no checksum that can be compared")
    found = pooch.file_hash(file, alg=algorithm)
    if found != wanted.lower():
        name, size = file.name.removesuffix(".part"), file.stat().st_size
        raise DownloadError(
            f"{name}: not what it should be: the {algorithm} of these {size} bytes is {found}, "
            f"{stated} {wanted}"
        )


# --- one transfer ----------------------------------------------------------------------------


def _fetch_rest(
    url: str, part: Path, most: int, timeout: float, hide: bool | None, resume: bool
) -> None:
    """Fetch what a partial file lacks, or all of it."""
    tag = _tag_file(part)
    validator = tag.read_text(encoding="latin-1") if tag.exists() else ""
    start = part.stat().st_size if part.exists() and (validator or resume) else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": f"ser_embed/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    bar = tqdm(
        desc=part.name.removesuffix(".part"), unit="B", unit_scale=True, initial=start,
        disable=hide, leave=True,
    )  # fmt: skip
    with part.open("ab") as file, bar:
        file.truncate(start)
        sink = _Sink(file, start, most, bar, tag)
        downloader = pooch.HTTPDownloader(
            chunk_size=_CHUNK, headers=headers, timeout=timeout, hooks={"response": sink.answered}
        )
        try:
            downloader(url, sink, None)
        except exceptions.HTTPError as error:
            if not sink.has_all:
                if _status(error) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    file.truncate(0)  # it is shorter now than what is here of it
                raise
        except exceptions.RequestException:
            raise
        except ValueError as error:
            raise DownloadError(f"{url}: the server's answer makes no sense ({error})") from error
    if sink.total and part.stat().st_size != sink.total:
        raise exceptions.ChunkedEncodingError("fewer bytes came than were announced")


class _Sink:
    """The file that pooch writes into: it heeds what the server answers, and bounds the size."""

    def __init__(self, file: BinaryIO, start: int, most: int, bar: "tqdm[Any]", tag: Path) -> None:
        self.file, self.start, self.most, self.bar, self.tag = file, start, most, bar, tag
        self.size, self.total, self.has_all = start, 0, False

    def answered(self, response: Response, *args: Any, **kwargs: Any) -> None:
        """Take in an answer's headers, before its body."""
        if response.is_redirect:
            return
        headers = response.headers
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.has_all = headers.get("Content-Range", "") == f"bytes */{self.start}"
        if not response.ok:
            return
        length = int(headers.get("Content-Length") or 0)
        if response.status_code == HTTPStatus.PARTIAL_CONTENT:
            if not headers.get("Content-Range", "").startswith(f"bytes {self.start}-"):
                raise DownloadError(f"{response.url}: the server sent another part than was asked")
        elif self.start:  # it can't send a part, or the file is another by now
            self.file.truncate(0)
            self.size = self.start = 0
            self.bar.reset()
        self.total = self.start + length if length else 0
        if self.total > self.most:
            self._too_large(self.total)
        etag = headers.get("ETag", "")
        strong = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
        self.tag.write_text(strong, encoding="latin-1", errors="replace")
        self.bar.total = self.total or None
        self.bar.refresh()

    def write(self, block: bytes) -> None:
        """Take the next bytes."""
        self.size += len(block)
        if self.size > self.most:
            self._too_large(self.size)
        self.file.write(block)
        self.bar.update(len(block))

    def flush(self) -> None:
        """Hand them to the system, so that a kill loses none."""
        self.file.flush()

    def _too_large(self, size: int) -> NoReturn:
        self.file.truncate(0)
        raise DownloadError(
            f"{self.tag.name.removesuffix('.part.tag')}: {size} bytes or more, where {self.most} "
            "are expected at most; look at its page for what became of it"
        )


def _tag_file(part: Path) -> Path:
    """Return where the server's mark of the version that is being fetched is kept."""
    return part.with_name(part.name + ".tag")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)


def _what_is_kept(part: Path, can_resume: bool) -> str:
    """Say what is kept of a broken transfer; what could never be gone on with is dropped."""
    size = part.stat().st_size if part.exists() else 0
    if not size or not (can_resume or _tag_file(part).read_text(encoding="latin-1")):
        _forget(part)
        return ""
    return f". {size / 1e6:.1f} MB are kept, and the same command goes on from there"


def _status(error: exceptions.RequestException) -> int:
    return error.response.status_code if error.response is not None else 0


def _broke_off(error: exceptions.RequestException) -> bool:
    """Whether a transfer had begun, so that going on is worth a try."""
    return isinstance(error, exceptions.ChunkedEncodingError) or _status(error) in _PASSING


def _explain(error: exceptions.RequestException, url: str, timeout: float) -> str:
    """Return what went wrong, in words."""
    text, host = str(error), urlsplit(url).netloc
    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        advice = "try again later" if _status(error) >= 500 else "see its page for where it is now"
        return f"the server answers {_status(error)} {error.response.reason}; {advice}"
    if isinstance(error, exceptions.Timeout) or "timed out" in text:
        return f"nothing came for {timeout:g} s; try again, or give more time with --timeout"
    if isinstance(error, exceptions.ChunkedEncodingError):
        return "the transfer broke off"
    if isinstance(error, exceptions.SSLError):
        return f"{host} can't prove that it is {host} ({text})"
    if isinstance(error, exceptions.ConnectionError):
        known = ("Connection refused", "Name or service not known", "Network is unreachable",
                 "Temporary failure in name resolution", "No route to host")  # fmt: skip
        reason = next((words for words in known if words in text), "no connection")
        return f"{host} can't be reached ({reason}); is there a network?"
    return f"can't be fetched ({text})"
