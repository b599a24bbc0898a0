"""Fetching a file over HTTP: resumed where it broke off, bounded in size, checked before use."""

import hashlib
import logging
import time
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import requests
from requests import exceptions

from ser_embed import __version__
from ser_embed.errors import DownloadError
from ser_embed.progress import progress

__all__ = ["check_file", "fetch_file", "file_digest"]

log = logging.getLogger(__name__)

ATTEMPTS = 3  # at a transfer that breaks off, each going on from the last
_PAUSE = 1.0  # seconds between them
_CHUNK = 1 << 16
_PASSING = (416, 502, 503, 504)  # answers that may be different a second later


def fetch_file(
    url: str,
    file: Path,
    most: int,
    checksum: str = "",
    timeout: float = 30.0,
    quiet: bool = False,
    stated: str = "the publisher states",
) -> None:
    """Fetch a file; it appears under its name only when it is whole and checked.

    What a transfer brought before it broke off stays in `<file>.part`, and the next call goes on
    from there if the server can and the file is still the same.

    Args:
        url: http or https.
        file: Where it goes.
        most: Bytes that it may have at most.
        checksum: `md5:HEX` or `sha256:HEX` that it must have, "" for any.
        timeout: Seconds without a byte after which the transfer ends.
        quiet: Whether no progress is shown.
        stated: Where the checksum is from, in words.

    Raises:
        DownloadError: It can't be fetched, is too large, or isn't what was expected.
        OSError: The disk can't be written.
    """
    part = file.with_name(file.name + ".part")
    file.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch_rest(url, part, most, timeout, quiet, resume=bool(checksum))
            break
        except exceptions.RequestException as error:
            reason = _explain(error, url, timeout)
            begun = isinstance(error, exceptions.ChunkedEncodingError) or _status(error) in _PASSING
            if attempt == ATTEMPTS or not begun:
                kept = _what_is_kept(part, can_resume=bool(checksum))
                raise DownloadError(f"{url}: {reason}{kept}") from error
            log.info("%s: %s; going on", url, reason)
            time.sleep(_PAUSE)
        except ValueError as error:
            raise DownloadError(f"{url}: the server's answer makes no sense ({error})") from error
        except DownloadError:
            _forget(part)
            raise
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
    found = file_digest(file, algorithm)
    if found != wanted.lower():
        name, size = file.name.removesuffix(".part"), file.stat().st_size
        raise DownloadError(
            f"{name}: not what it should be: the {algorithm} of these {size} bytes is {found}, "
            f"{stated} {wanted}"
        )


def file_digest(file: Path, algorithm: str = "sha256") -> str:
    """Return a file's digest in hexadecimal."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# --- one transfer ----------------------------------------------------------------------------


def _fetch_rest(url: str, part: Path, most: int, timeout: float, quiet: bool, resume: bool) -> None:
    """Fetch what a partial file lacks, or all of it."""
    tag, name = _tag_file(part), part.name.removesuffix(".part")
    version = tag.read_text(encoding="latin-1") if tag.exists() else ""
    start = part.stat().st_size if part.exists() and (version or resume) else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": f"ser_embed/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version:
            headers["If-Range"] = version
    with requests.get(url, headers=headers, timeout=timeout, stream=True) as response:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if response.headers.get("Content-Range", "") == f"bytes */{start}":
                return  # it is here whole
            part.write_bytes(b"")  # it is shorter now than what is here of it
        response.raise_for_status()
        if response.status_code != HTTPStatus.PARTIAL_CONTENT:
            start = 0  # the server can't send a part, or the file is another by now
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise DownloadError(f"{url}: the server sent another part than was asked for")
        length = int(response.headers.get("Content-Length") or 0)
        total = start + length if length else 0
        if total > most:
            _too_large(name, total, most)
        etag = response.headers.get("ETag", "")
        strong = etag and not etag.startswith("W/")
        version = etag if strong else response.headers.get("Last-Modified", "")
        tag.write_text(version, encoding="latin-1", errors="replace")
        with part.open("ab") as file, progress(name, total or None, "B", quiet, start) as bar:
            file.truncate(start)
            for block in response.iter_content(_CHUNK):
                if bar.done + len(block) > most:
                    _too_large(name, int(bar.done) + len(block), most)
                file.write(block)
                file.flush()  # so that a kill loses none of it
                bar.advance(len(block))
    if total and part.stat().st_size != total:
        raise exceptions.ChunkedEncodingError("fewer bytes came than were announced")


def _too_large(name: str, size: int, most: int) -> NoReturn:
    raise DownloadError(
        f"{name}: {size} bytes or more, where {most} are expected at most; look at its page for "
        "what became of it"
    )


def _tag_file(part: Path) -> Path:
    """Return where the server's mark of the version that is being fetched is kept."""
    return part.with_name(part.name + ".tag")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)


def _what_is_kept(part: Path, can_resume: bool) -> str:
    """Say what is kept of a broken transfer; what could never be resumed is dropped."""
    size, tag = part.stat().st_size if part.exists() else 0, _tag_file(part)
    if not size or not (can_resume or (tag.exists() and tag.stat().st_size)):
        _forget(part)
        return ""
    return f". {size / 1e6:.1f} MB are kept, and the same command goes on from there"


def _status(error: exceptions.RequestException) -> int:
    return error.response.status_code if error.response is not None else 0


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
