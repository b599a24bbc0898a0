"""The official corpora: fetched from their publishers, checked, unpacked and counted.

`python -m ser_embed.download ravdess` makes `data/ravdess`, where `python -m ser_embed.extract`
finds it. Nothing is ever laid over a folder that is there.
"""

import json
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pooch
import tyro
from filelock import FileLock, Timeout
from tqdm import tqdm

from ser_embed.audio import AudioFile
from ser_embed.command import (
    DONE,
    SOME_CLIPS_FAILED,
    Options,
    Outcome,
    data_folder,
    hide_bar,
    run_command,
)
from ser_embed.corpora.archives import Limits, member_path, unpack
from ser_embed.corpora.folders import read_corpus
from ser_embed.corpora.naming import CORPORA
from ser_embed.corpora.sources import SOURCES, Archive, Source
from ser_embed.corpora.transfer import check_file, fetch_file
from ser_embed.errors import AudioError, CorpusError, DownloadError

__all__ = ["DownloadConfig", "fetch_corpus", "main"]

log = logging.getLogger(__name__)

_MARGIN = 2  # times what the table says is refused
_THREADS = 8  # small files fetched at once
_MAX_LISTING = 50_000_000  # bytes
_MAX_CLIP = 5_000_000  # bytes


@dataclass(frozen=True)
class DownloadConfig(Options):
    """Fetch corpora from their publishers, check, unpack and count them.

    They go to ./data/CORPUS (or $SER_EMBED_DATA/CORPUS), where extract finds them. A transfer that
    breaks off goes on when the command is run again; what is there already is left alone.
    """

    corpora: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """ravdess, ravdess-song, tess, urdu, crema-d, emo-db, savee, nemo. None: the list of them."""
    list: bool = False
    """List the corpora with size, licence and address, and fetch nothing."""
    data_dir: Path | None = None
    """Folder that holds the corpora. Default: $SER_EMBED_DATA, else ./data."""
    archive: Path | None = None
    """An archive that you have already, to be checked and unpacked instead of a fetched one."""
    mirror: str = ""
    """Address of a folder with copies of the same archives, to fetch from instead."""
    keep: bool = False
    """Keep the archive after it is unpacked."""
    timeout: float = 30.0
    """Seconds without a byte after which a transfer ends."""


def fetch_corpus(source: Source, config: DownloadConfig) -> dict[str, Any]:
    """Fetch one corpus unless it is there, and count its clips.

    Returns:
        `corpus`, `folder`, `clips` found, `official` number of clips, and `state`: `there` if
        nothing had to be done, else `fetched`.

    Raises:
        DownloadError: It can't be fetched, isn't what was expected, or is only had by hand.
        OSError: The disk can't be written.
    """
    data = config.data_dir or data_folder()
    folder = data / source.corpus
    licence = CORPORA[source.corpus].licence
    print(f"{source.corpus}: licence {licence}; see {source.page}", file=sys.stderr)
    state = "there"
    with _alone(data / ".downloads" / f"{source.corpus}.lock"):
        if not (folder.is_dir() and any(folder.iterdir())):
            state = "fetched"
            _fetch(source, config, folder)
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
def _alone(lock: Path) -> Iterator[None]:
    """Keep other processes from the same corpus."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout as error:
        raise DownloadError(f"{lock.stem}: another process is fetching it ({lock})") from error


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


# --- fetching --------------------------------------------------------------------------------


def _fetch(source: Source, config: DownloadConfig, folder: Path) -> None:
    if config.archive:
        if not config.archive.is_file():
            raise DownloadError(f"{config.archive}: no such file")
        if source.archive and source.archive.checksum:
            check_file(config.archive, source.archive.checksum, "the publisher states")
        _unpack(config.archive, source, folder)
    elif source.by_hand:
        raise DownloadError(
            f"{source.corpus} can't be fetched by this command: "
            + source.by_hand.format(folder=folder)
        )
    elif source.listing:
        _fetch_listed(source, config, folder)
    else:
        assert source.archive is not None
        _fetch_archive(source, source.archive, config, folder)


def _fetch_archive(source: Source, about: Archive, config: DownloadConfig, folder: Path) -> None:
    archive = folder.parent / ".downloads" / f"{source.corpus}-{about.name}"
    record = archive.with_name(archive.name + ".sha256")
    checksum, stated = about.checksum, "the publisher states"
    if not checksum and record.exists():
        checksum = record.read_text(encoding="utf-8", errors="replace").strip()
        stated = (
            f"the first download's (kept in {record}; delete it if the publisher changed it) is"
        )
    if not archive.exists():
        fetch_file(
            _mirrored(about, config), archive, most=about.megabytes * 1_000_000 * _MARGIN,
            checksum=checksum, timeout=config.timeout, hide=hide_bar(config), stated=stated,
        )  # fmt: skip
    try:
        if checksum:
            check_file(archive, checksum, stated)  # it may have lain here for long
        _unpack(archive, source, folder)
    except DownloadError:
        archive.unlink()  # or every further run would take it for good
        raise
    if not about.checksum:
        record.write_text(f"sha256:{pooch.file_hash(archive)}\n", encoding="ascii")
    if not config.keep:
        archive.unlink()


def _mirrored(archive: Archive, config: DownloadConfig) -> str:
    return f"{config.mirror.rstrip('/')}/{archive.name}" if config.mirror else archive.url


def _unpack(archive: Path, source: Source, folder: Path) -> None:
    about = source.archive or Archive("", source.megabytes, source.megabytes * 5, source.clips * 3)
    log.info("%s: unpacking", archive)
    if folder.is_dir():
        folder.rmdir()  # empty
    unpack(archive, folder, Limits(about.unpacked * 1_000_000 * _MARGIN, about.members * _MARGIN))


def _fetch_listed(source: Source, config: DownloadConfig, folder: Path) -> None:
    """Fetch the files of a Dataverse's dataset one by one, each checked by the MD5 it states.

    What is there after a break stays in a hidden folder beside; the next call fetches the rest.
    """
    server, path = source.listing.split("/api/")
    server = config.mirror.rstrip("/") or server
    listing = folder.parent / ".downloads" / f"{source.corpus}.json"
    fetch_file(f"{server}/api/{path}", listing, _MAX_LISTING, timeout=config.timeout, hide=True)
    beside = folder.with_name(f".fetching-{folder.name}")
    files = _listed_files(listing, server)
    fetch = partial(fetch_file, most=_MAX_CLIP, timeout=config.timeout, hide=True)
    with ThreadPoolExecutor(_THREADS) as pool:
        missing = [(url, beside / name, md5) for name, url, md5 in files]
        waiting = [
            pool.submit(fetch, url, file, checksum=md5)
            for url, file, md5 in missing if not file.exists()
        ]  # fmt: skip
        try:
            for future in tqdm(waiting, source.corpus, unit="file", disable=hide_bar(config)):
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
    if folder.is_dir():
        folder.rmdir()
    beside.replace(folder)


def _listed_files(listing: Path, server: str) -> list[tuple[Path, str, str]]:
    """Return the name, address and checksum of each audio file that a Dataverse lists.

    Raises:
        DownloadError: It isn't such a list, or has a name that leads out of the folder.
    """
    files: dict[Path, tuple[str, str]] = {}
    try:
        for told in json.loads(listing.read_text(encoding="utf-8"))["data"]["latestVersion"][
            "files"
        ]:
            about = told["dataFile"]
            place = member_path(
                f"{told.get('directoryLabel') or ''}/{about['filename']}".lstrip("/")
            )
            if place is not None and place.suffix.lower() in AudioFile.ENDINGS:
                address = f"{server}/api/access/datafile/{int(about['id'])}"
                files[Path(place)] = address, f"md5:{about['md5']}"
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DownloadError(f"{listing}: not a Dataverse's list of files ({error!r})") from error
    if not files:
        raise DownloadError(f"{listing}: lists no audio file")
    return [(name, *told) for name, told in files.items()]


# --- the command -----------------------------------------------------------------------------


def _listed(config: DownloadConfig) -> Outcome:
    rows = [
        {"corpus": s.corpus, "clips": s.clips, "megabytes": s.megabytes,
         "licence": CORPORA[s.corpus].licence, "page": s.page, "by_hand": bool(s.by_hand),
         "checksum": bool(s.listing or (s.archive and s.archive.checksum))}
        for s in SOURCES.values()
    ]  # fmt: skip
    if not config.json:
        for row in rows:
            note = "  (by hand: the command says how)" if row["by_hand"] else ""
            print(
                f"{row['corpus']:13} {row['clips']:5} clips {row['megabytes']:4} MB  "
                f"{row['licence']:18} {row['page']}{note}"
            )
    return Outcome({"corpora": rows})


def download(config: DownloadConfig) -> Outcome:
    """Fetch the corpora that the options name.

    Raises:
        SerEmbedError: A name that isn't known, or a corpus that can't be fetched.
    """
    if config.list or not config.corpora:
        return _listed(config)
    unknown = [name for name in config.corpora if name not in SOURCES]
    if unknown:
        raise DownloadError(f"no corpus {unknown[0]!r}; there are {', '.join(SOURCES)}")
    if config.archive and len(config.corpora) != 1:
        raise DownloadError("--archive is of one corpus: name that one alone")
    done = [fetch_corpus(SOURCES[name], config) for name in dict.fromkeys(config.corpora)]
    short = any(one["clips"] < one["official"] for one in done)
    return Outcome({"corpora": done}, SOME_CLIPS_FAILED if short else DONE)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.download`."""
    return run_command(download, DownloadConfig, "python -m ser_embed.download", argv)


if __name__ == "__main__":
    raise SystemExit(main())
