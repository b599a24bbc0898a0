"""The official corpora: fetched from their publishers, checked, unpacked and counted.

`python -m ser_embed.download ravdess` makes `data/ravdess`, where `python -m ser_embed.extract`
finds it. Nothing is ever laid over a folder that is there.
"""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ser_embed.audio import AudioFile
from ser_embed.command import DONE, SOME_CLIPS_FAILED, Outcome
from ser_embed.corpora.archives import Limits, member_path, unpack
from ser_embed.corpora.listing import read_corpus
from ser_embed.corpora.naming import CORPORA
from ser_embed.corpora.sources import SOURCES, Archive, Source
from ser_embed.corpora.transfer import check_file, fetch_file, file_digest
from ser_embed.errors import AudioError, CorpusError, DownloadError
from ser_embed.progress import track

__all__ = ["download", "fetch_corpus", "list_sources"]

log = logging.getLogger(__name__)

_MARGIN = 2  # times what the table says is refused
_THREADS = 8  # small files fetched at once
_MAX_LISTING = 50_000_000  # bytes
_MAX_CLIP = 5_000_000  # bytes
_DOWNLOADS = ".downloads"  # folder of archives, next to the corpora's own


def list_sources(as_json: bool) -> Outcome:
    """Print the corpora with size, licence and address."""
    rows = [
        {"corpus": s.corpus, "clips": s.clips, "megabytes": s.megabytes,
         "licence": CORPORA[s.corpus].licence, "page": s.page, "by_hand": bool(s.by_hand),
         "checksum": bool(s.listing or (s.archive and s.archive.checksum))}
        for s in SOURCES.values()
    ]  # fmt: skip
    for row in () if as_json else rows:
        note = "  (by hand: the command says how)" if row["by_hand"] else ""
        print(
            f"{row['corpus']:13} {row['clips']:5} clips {row['megabytes']:4} MB  "
            f"{row['licence']:18} {row['page']}{note}"
        )
    return Outcome({"corpora": rows})


def download(names: Sequence[str], data: Path, **how: Any) -> Outcome:
    """Fetch corpora by name; the rest of the arguments are those of `fetch_corpus`.

    Raises:
        DownloadError: A name that isn't known, or a corpus that can't be fetched.
    """
    unknown = [name for name in names if name not in SOURCES]
    if unknown:
        raise DownloadError(f"no corpus {unknown[0]!r}; there are {', '.join(SOURCES)}")
    if how.get("archive") and len(names) != 1:
        raise DownloadError("--archive is of one corpus: name that one alone")
    done = [fetch_corpus(SOURCES[name], data, **how) for name in dict.fromkeys(names)]
    short = any(one["clips"] < one["official"] for one in done)
    return Outcome({"corpora": done}, SOME_CLIPS_FAILED if short else DONE)


def fetch_corpus(
    source: Source,
    data: Path,
    archive: Path | None = None,
    keep: bool = False,
    timeout: float = 30.0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Fetch one corpus unless it is there, and count its clips.

    Args:
        source: Where it is from.
        data: Folder that holds the corpora; this one goes to a folder of its name in there.
        archive: An archive that is unpacked instead of a fetched one.
        keep: Whether a fetched archive is kept.
        timeout: Seconds without a byte after which a transfer ends.
        quiet: Whether no progress is shown.

    Returns:
        `corpus`, `folder`, `clips` found, `official` number of clips, and `state`: `there` if
        nothing had to be done, else `fetched`.

    Raises:
        DownloadError: It can't be fetched, isn't what was expected, or must be fetched by hand.
        OSError: The disk can't be written.
    """
    folder = data / source.corpus
    print(
        f"{source.corpus}: licence {CORPORA[source.corpus].licence}; see {source.page}",
        file=sys.stderr,
    )
    state = "there"
    with _lock(data / _DOWNLOADS / f"{source.corpus}.lock"):
        if not (folder.is_dir() and any(folder.iterdir())):
            state = "fetched"
            if archive:
                _unpack_own(archive, source, folder)
            elif source.archive:
                _fetch_archive(source, source.archive, folder, keep, timeout, quiet)
            elif source.listing:
                _fetch_listed(source, folder, timeout, quiet)
            else:
                raise DownloadError(
                    f"{source.corpus} can't be fetched by this command: "
                    + source.by_hand.format(folder=folder)
                )
        n_clips = _count(source, folder)
    if n_clips >= source.clips:
        words = "already there" if state == "there" else f"now in {folder}"
        log.info("%s: all %d clips %s", source.corpus, n_clips, words)
    else:
        print(
            f"{source.corpus}: {folder} holds {n_clips} of the {source.clips} clips that the "
            "official release has; to fetch it again, delete that folder or move it away first",
            file=sys.stderr,
        )
    return {"corpus": source.corpus, "folder": str(folder), "clips": n_clips,
            "official": source.clips, "state": state}  # fmt: skip


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    """Keep other processes from the same corpus."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(file, timeout=0):
            yield
    except Timeout as error:
        raise DownloadError(f"{file.stem}: another process is fetching it ({file})") from error


def _count(source: Source, folder: Path) -> int:
    """Count the clips by name and decode one, so that a folder of pointers isn't taken for audio.

    Raises:
        DownloadError: That one can't be decoded.
    """
    try:
        clips = read_corpus(folder, source.corpus).utterances
        AudioFile(clips[0].path).read()
    except CorpusError:
        return 0
    except AudioError as error:
        raise DownloadError(str(error)) from error
    return len(clips)


# --- archives --------------------------------------------------------------------------------


def _unpack_own(archive: Path, source: Source, folder: Path) -> None:
    if not archive.is_file():
        raise DownloadError(f"{archive}: no such file")
    if source.archive and source.archive.checksum:
        check_file(archive, source.archive.checksum, "the publisher states")
    _unpack(archive, source, folder)


def _fetch_archive(
    source: Source, about: Archive, folder: Path, keep: bool, timeout: float, quiet: bool
) -> None:
    archive = folder.parent / _DOWNLOADS / f"{source.corpus}-{about.name}"
    record = archive.with_name(archive.name + ".sha256")
    checksum, stated = about.checksum, "the publisher states"
    if not checksum and record.exists():
        checksum = record.read_text(encoding="utf-8", errors="replace").strip()
        stated = (
            f"the first download's (kept in {record}; delete it if the publisher changed it) is"
        )
    if not archive.exists():
        most = about.megabytes * 1_000_000 * _MARGIN
        fetch_file(about.url, archive, most, checksum, timeout, quiet, stated)
    try:
        if checksum:
            check_file(archive, checksum, stated)  # it may be an old one
        _unpack(archive, source, folder)
    except DownloadError:
        archive.unlink()  # or every further run would use it again
        raise
    if not about.checksum:
        record.write_text(f"sha256:{file_digest(archive)}\n", encoding="ascii")
    if not keep:
        archive.unlink()


def _unpack(archive: Path, source: Source, folder: Path) -> None:
    about = source.archive or Archive("", source.megabytes, source.megabytes * 5, source.clips * 3)
    log.info("%s: unpacking", archive)
    if folder.is_dir():
        folder.rmdir()  # empty
    unpack(archive, folder, Limits(about.unpacked * 1_000_000 * _MARGIN, about.members * _MARGIN))


# --- a Dataverse: files one by one -----------------------------------------------------------


def _fetch_listed(source: Source, folder: Path, timeout: float, quiet: bool) -> None:
    """Fetch the files of a Dataverse's dataset one by one, each checked by the MD5 it states.

    What is there after a break stays in a hidden folder; the next call fetches the rest.
    """
    listing = folder.parent / _DOWNLOADS / f"{source.corpus}.json"
    fetch_file(source.listing, listing, _MAX_LISTING, timeout=timeout, quiet=True)
    files = _listed_files(listing, source.listing.split("/api/")[0])
    hidden = folder.with_name(f".fetching-{folder.name}")
    fetch = partial(fetch_file, most=_MAX_CLIP, timeout=timeout, quiet=True)
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting = [
            pool.submit(fetch, url, hidden / name, checksum=md5)
            for name, (url, md5) in files.items() if not (hidden / name).exists()
        ]  # fmt: skip
        try:
            for future in track(
                as_completed(waiting), f"fetch {source.corpus}", "file", len(waiting), quiet
            ):
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
    if folder.is_dir():
        folder.rmdir()
    hidden.replace(folder)


def _listed_files(listing: Path, server: str) -> dict[Path, tuple[str, str]]:
    """Return the address and checksum of each audio file that a Dataverse lists, by its name.

    Raises:
        DownloadError: It isn't such a list, or has a name that leads out of the folder.
    """
    files: dict[Path, tuple[str, str]] = {}
    try:
        data = json.loads(listing.read_text(encoding="utf-8"))["data"]
        for entry in data["latestVersion"]["files"]:
            about, within = entry["dataFile"], entry.get("directoryLabel") or ""
            name = member_path(f"{within}/{about['filename']}".lstrip("/"))
            if name is not None and name.suffix.lower() in AudioFile.ENDINGS:
                address = f"{server}/api/access/datafile/{int(about['id'])}"
                files[Path(name)] = address, f"md5:{about['md5']}"
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DownloadError(f"{listing}: not a Dataverse's list of files ({error!r})") from error
    if not files:
        raise DownloadError(f"{listing}: lists no audio file")
    return files
