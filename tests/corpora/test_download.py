"""Downloads from a real server on this machine, that behaves and misbehaves as servers do."""

import hashlib
import http.server
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from ser_embed import download, progress
from ser_embed.corpora import transfer
from ser_embed.corpora.fetch import fetch_corpus
from ser_embed.corpora.listing import discover
from ser_embed.corpora.naming import CORPORA
from ser_embed.corpora.sources import SOURCES, Archive, Source
from ser_embed.corpora.transfer import fetch_file
from ser_embed.errors import DownloadError

DATA = bytes(range(256)) * 4000  # 1 MB
BLOCK = 1 << 16  # bytes that are read at a time


@dataclass
class Page:
    """What the server does with one address.

    Attributes:
        data: The file.
        breaks: How many answers end in the middle.
        ranges: Whether it sends parts.
        etag: The file's mark.
        status: What it answers instead, if not 200.
        pause: Seconds before each block of the body.
        length: Whether it states the length.
        redirect: Address that it sends the client to.
    """

    data: bytes = DATA
    breaks: int = 0
    ranges: bool = True
    etag: str = '"1"'
    status: int = 0
    pause: float = 0.0
    length: bool = True
    redirect: str = ""
    asked: list[str] = field(default_factory=list)


class Site(http.server.ThreadingHTTPServer):
    """The server, with its pages by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Page] = {}

    def handle_error(self, *args: object) -> None:
        """Say nothing of clients that went away."""

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path)
        asked = self.headers.get("Range", "")
        if page is None or page.status:
            if page is not None:
                page.asked.append(asked)
            self.send_error(page.status if page else 404)
            return
        page.asked.append(asked)
        if page.redirect:
            self.send_response(302)
            self.send_header("Location", page.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if asked and page.ranges and self.headers.get("If-Range", page.etag) == page.etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start and start >= len(page.data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(page.data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_body(page, start)

    def send_body(self, page: Page, start: int) -> None:
        body = page.data[start:]
        self.send_response(206 if start else 200)
        if start:
            end = len(page.data)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        if page.etag:
            self.send_header("ETag", page.etag)
        if page.length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if page.breaks:
            page.breaks -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        for place in range(0, len(body), 1 << 18):
            time.sleep(page.pause)
            self.wfile.write(body[place : place + (1 << 18)])
        if not page.length:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield site
    site.shutdown()
    thread.join()
    site.server_close()


@pytest.fixture
def site(server: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    server.pages.clear()
    monkeypatch.setattr(transfer, "_PAUSE", 0.01)
    return server


@pytest.fixture
def get(site: Site, tmp_path: Path) -> Callable[..., bytes]:
    def _get(page: Page, checksum: str = "", most: int = 2_000_000, timeout: float = 5) -> bytes:
        site.pages["/file.bin"] = page
        fetch_file(
            f"{site.url}/file.bin", tmp_path / "file.bin", most, checksum, timeout, quiet=True
        )
        data = (tmp_path / "file.bin").read_bytes()
        assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]
        return data

    return _get


MD5 = "md5:" + hashlib.md5(DATA).hexdigest()
SHA = "sha256:" + hashlib.sha256(DATA).hexdigest()


# --- one file --------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", ["", MD5, SHA, SHA.replace(SHA[7:], SHA[7:].upper())])
def test_a_file_comes_whole(get: Callable[..., bytes], checksum: str) -> None:
    assert get(Page(), checksum) == DATA
    assert get(Page(length=False, etag="")) == DATA


def test_a_redirect_is_followed(site: Site, get: Callable[..., bytes]) -> None:
    site.pages["/elsewhere"] = Page()
    assert get(Page(redirect=f"{site.url}/elsewhere"), MD5) == DATA


def test_a_transfer_that_breaks_off_goes_on_where_it_was(get: Callable[..., bytes]) -> None:
    page = Page(breaks=2)
    assert get(page, MD5) == DATA
    assert page.asked[0] == ""
    starts = [int(asked[6:-1]) for asked in page.asked[1:]]
    half = len(DATA) // 2
    assert half - BLOCK < starts[0] <= half  # less than a block is lost where it breaks
    assert starts[0] + (len(DATA) - starts[0]) // 2 - BLOCK < starts[1] < len(DATA)
    assert len(starts) == 2


def test_a_server_that_sends_no_parts_is_asked_for_all_again(get: Callable[..., bytes]) -> None:
    page = Page(breaks=1, ranges=False)
    assert get(page, MD5) == DATA
    assert len(page.asked) == 2
    assert page.asked[1]


def test_what_came_is_kept_for_the_next_call(get: Callable[..., bytes], tmp_path: Path) -> None:
    page = Page(breaks=3)
    with pytest.raises(DownloadError, match=r"broke off\. 0\.[789] MB are kept, and the same"):
        get(page)
    assert not (tmp_path / "file.bin").exists()
    kept = (tmp_path / "file.bin.part").stat().st_size
    assert kept > len(DATA) * 3 // 4 - BLOCK
    assert get(page) == DATA
    assert page.asked[-1] == f"bytes={kept}-"


def test_a_file_that_changed_in_between_is_fetched_anew(get: Callable[..., bytes]) -> None:
    with pytest.raises(DownloadError, match="broke off"):
        get(Page(breaks=3))
    other = bytes(reversed(DATA))
    assert get(Page(data=other, etag='"2"')) == other


def test_without_mark_and_checksum_nothing_is_stuck_together(get: Callable[..., bytes]) -> None:
    with pytest.raises(DownloadError, match=r"broke off$"):
        get(Page(breaks=3, etag=""))
    page = Page(data=bytes(reversed(DATA)), etag="")
    assert get(page) == page.data
    assert page.asked == [""]


@pytest.mark.parametrize("size", [len(DATA), len(DATA) + 10])
def test_a_part_that_is_whole_or_too_long_is_no_trouble(
    get: Callable[..., bytes], tmp_path: Path, size: int
) -> None:
    (tmp_path / "file.bin.part").write_bytes((DATA + bytes(10))[:size])
    assert get(Page(), MD5) == DATA


def test_another_file_names_both_digests_and_is_not_kept(
    get: Callable[..., bytes], tmp_path: Path
) -> None:
    other = bytes(reversed(DATA))
    with pytest.raises(DownloadError) as error:
        get(Page(data=other), MD5)
    assert hashlib.md5(other).hexdigest() in str(error.value)
    assert MD5.removeprefix("md5:") in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [True, False])
def test_a_file_that_grows_too_large_is_dropped(
    get: Callable[..., bytes], tmp_path: Path, length: bool
) -> None:
    with pytest.raises(DownloadError, match="500000 are expected at most"):
        get(Page(length=length), most=500_000)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 100


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "404 Not Found; see its page"), (403, "403 Forbidden; see its page"),
     (503, "503 Service Unavailable; try again later")],
)  # fmt: skip
def test_a_refusal_is_explained(
    get: Callable[..., bytes], tmp_path: Path, status: int, words: str
) -> None:
    with pytest.raises(DownloadError, match=words):
        get(Page(status=status))
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_falls_silent_is_reported(get: Callable[..., bytes]) -> None:
    with pytest.raises(DownloadError, match=r"nothing came for 0\.2 s; .* --timeout"):
        get(Page(pause=5), timeout=0.2)


def test_a_slow_server_is_waited_for_and_progress_shows_the_rate(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    caplog.set_level("INFO")
    site.pages["/slow.bin"] = Page(pause=0.25)
    fetch_file(f"{site.url}/slow.bin", tmp_path / "slow.bin", 2_000_000, MD5, 0.5)
    lines = re.findall(r"slow\.bin: ([01]) of 1 MB, [\d.]+ MB/s, \d:\d\d left", caplog.text)
    assert len(lines) >= 3
    assert (lines[0], lines[-1]) == ("0", "1")


def test_no_network_is_reported(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    with pytest.raises(DownloadError, match=rf"127.0.0.1:{port} can't be reached \(Connection ref"):
        fetch_file(f"http://127.0.0.1:{port}/a.zip", tmp_path / "a.zip", 1000)
    with pytest.raises(DownloadError, match="can't be reached"):
        fetch_file("http://no-such-host.invalid/a.zip", tmp_path / "a.zip", 1000)
    with pytest.raises(DownloadError, match="can't be fetched"):
        fetch_file("nonsense", tmp_path / "a.zip", 1000)
    assert list(tmp_path.iterdir()) == []


RAW_ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc", b"SSH-2.0-OpenSSH_9.6\r\n",
    b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 9-9/10\r\nContent-Length: 1\r\n\r\na",
    b"HTTP/1.1 302 Found\r\nLocation: ftp://x/y\r\nContent-Length: 0\r\n\r\n", b"",
]  # fmt: skip


@pytest.mark.parametrize("answer", RAW_ANSWERS)
def test_nonsense_from_a_server_is_an_error_in_words(tmp_path: Path, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def speak() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(10_000)
                    connection.sendall(answer)

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/a.zip"
        with pytest.raises(DownloadError):
            fetch_file(url, tmp_path / "a.zip", 1000, timeout=2)
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert not (tmp_path / "a.zip").exists()


# --- a corpus --------------------------------------------------------------------------------

N_CLIPS = 6


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, write_tone: Callable[..., Path]) -> bytes:
    """A zip of six clips that are named as EMO-DB's."""
    folder = tmp_path_factory.mktemp("clips")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for number, letter in enumerate("WLEAFT"):
            clip = write_tone(folder / f"03a01{letter}a.wav", seconds=0.2, seed=number)
            archive.write(clip, f"wav/{clip.name}")
        archive.writestr("erklaerung.txt", "Sprecher 03")
    return stream.getvalue()


def at(source: Source, url: str) -> Source:
    """The same source with its archive at another address."""
    assert source.archive is not None
    return replace(source, archive=replace(source.archive, url=url))


@pytest.fixture
def emo_db(site: Site, packed: bytes) -> Source:
    """EMO-DB at the test's server, and as small as its archive there."""
    site.pages["/download.zip"] = Page(packed)
    return replace(at(SOURCES["emo-db"], f"{site.url}/download.zip"), clips=N_CLIPS)


def test_a_corpus_is_fetched_unpacked_and_found(
    emo_db: Source, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    data = tmp_path
    found = fetch_corpus(emo_db, data, quiet=True)
    assert found == {"corpus": "emo-db", "folder": str(tmp_path / "emo-db"), "clips": 6,
                    "official": 6, "state": "fetched"}  # fmt: skip
    first = "emo-db: licence free for research; see http://emodb.bilderbar.info\n"
    assert capsys.readouterr().err.startswith(first)
    (listing,) = discover(tmp_path)  # what extract without ROOT looks at
    assert (listing.corpus, len(listing.utterances)) == ("emo-db", 6)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".downloads", "emo-db"]
    # A second run does nothing, and says so.
    before = len(site.pages["/download.zip"].asked)
    assert fetch_corpus(emo_db, data, quiet=True)["state"] == "there"
    assert "all 6 clips already there" in caplog.text
    assert len(site.pages["/download.zip"].asked) == before


def test_without_a_stated_checksum_a_later_download_is_compared_with_the_first(
    emo_db: Source, site: Site, packed: bytes, tmp_path: Path
) -> None:
    data = tmp_path
    fetch_corpus(emo_db, data, quiet=True)
    digest = hashlib.sha256(packed).hexdigest()
    record = tmp_path / ".downloads" / "emo-db-download.zip.sha256"
    assert record.read_text() == f"sha256:{digest}\n"
    (tmp_path / "emo-db").rename(tmp_path / "mine")
    changed = packed.replace(b"Sprecher 03", b"Sprecher 04")
    site.pages["/download.zip"] = Page(changed)
    with pytest.raises(DownloadError) as error:
        fetch_corpus(emo_db, data, quiet=True)
    for words in (digest, hashlib.sha256(changed).hexdigest(), str(record)):
        assert words in str(error.value)
    assert not (tmp_path / "emo-db").exists()
    site.pages["/download.zip"] = Page(packed)
    assert fetch_corpus(emo_db, data, quiet=True)["clips"] == 6


def test_a_page_in_place_of_an_archive_is_neither_kept_nor_remembered(
    emo_db: Source, site: Site, packed: bytes, tmp_path: Path
) -> None:
    data = tmp_path
    site.pages["/download.zip"] = Page(b"<html>please log in</html>")
    with pytest.raises(DownloadError, match="not a zip or tar archive"):
        fetch_corpus(emo_db, data, quiet=True)
    assert [p.name for p in (tmp_path / ".downloads").glob("*.zip*")] == []
    site.pages["/download.zip"] = Page(packed)
    assert fetch_corpus(emo_db, data, quiet=True)["clips"] == 6


def test_a_folder_that_is_short_is_reported_and_left_alone(
    emo_db: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path
    fetch_corpus(emo_db, data, quiet=True)
    (tmp_path / "emo-db" / "wav" / "03a01Wa.wav").unlink()
    found = fetch_corpus(emo_db, data, quiet=True)
    assert (found["clips"], found["state"]) == (5, "there")
    assert "holds 5 of the 6 clips" in capsys.readouterr().err


def test_a_folder_of_pointers_is_not_taken_for_a_corpus(shared: Path, tmp_path: Path) -> None:
    pointer = (shared / "corpora/cremad/lfs_pointer_example.wav").read_bytes()
    (tmp_path / "crema-d").mkdir()
    (tmp_path / "crema-d" / "1001_DFA_ANG_XX.wav").write_bytes(pointer)
    with pytest.raises(DownloadError, match="git-lfs pointer"):
        fetch_corpus(SOURCES["crema-d"], tmp_path, quiet=True)


def test_a_kept_archive_is_used_again_if_it_is_still_the_same(
    emo_db: Source, site: Site, tmp_path: Path
) -> None:
    data = tmp_path
    fetch_corpus(emo_db, data, keep=True, quiet=True)
    shutil.rmtree(tmp_path / "emo-db")
    assert fetch_corpus(emo_db, data, keep=True, quiet=True)["clips"] == 6
    assert len(site.pages["/download.zip"].asked) == 1
    shutil.rmtree(tmp_path / "emo-db")
    archive = tmp_path / ".downloads" / "emo-db-download.zip"
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    with pytest.raises(DownloadError, match="not what it should be"):
        fetch_corpus(emo_db, data, keep=True, quiet=True)
    assert fetch_corpus(emo_db, data, keep=True, quiet=True)["clips"] == 6  # fetched anew


# A process of its own, with EMO-DB's address at the test's server.
DOWNLOAD = """
import sys
from dataclasses import replace
from ser_embed.corpora.sources import SOURCES
from ser_embed.download import main
source = SOURCES["emo-db"]
archive = replace(source.archive, url=f"{sys.argv[1]}/download.zip")
SOURCES["emo-db"] = replace(source, archive=archive)
raise SystemExit(main(["emo-db", *sys.argv[2:]]))
"""


def test_a_killed_download_goes_on(
    site: Site, packed: bytes, tmp_path: Path, project: Path
) -> None:
    """Killed in the middle of the transfer, the next one asks for the rest alone."""
    stream = io.BytesIO(packed)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("long.txt", bytes(3_000_000))
    site.pages["/download.zip"] = Page(stream.getvalue(), pause=0.3)
    args = [sys.executable, "-c", DOWNLOAD, site.url, "--data-dir", str(tmp_path)]
    part = tmp_path / ".downloads" / "emo-db-download.zip.part"
    with subprocess.Popen(args, cwd=project, stderr=subprocess.DEVNULL) as process:
        while not part.exists() or part.stat().st_size < 1_000_000:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    size = part.stat().st_size
    site.pages["/download.zip"].pause = 0
    assert subprocess.run(args, cwd=project, capture_output=True, check=False).returncode == 3
    assert site.pages["/download.zip"].asked == ["", f"bytes={size}-"]
    assert len(list((tmp_path / "emo-db").rglob("*.wav"))) == N_CLIPS


def test_two_at_once_exclude_each_other(emo_db: Source, site: Site, tmp_path: Path) -> None:
    site.pages["/download.zip"].pause = 0.5
    data = tmp_path
    done: list[object] = []
    first = threading.Thread(target=lambda: done.append(fetch_corpus(emo_db, data, quiet=True)))
    first.start()
    while not site.pages["/download.zip"].asked:
        time.sleep(0.01)
    with pytest.raises(DownloadError, match="another process is fetching it"):
        fetch_corpus(emo_db, data, quiet=True)
    first.join()
    assert len(done) == 1


def test_a_users_own_archive_is_checked_and_unpacked(packed: bytes, tmp_path: Path) -> None:
    mine = tmp_path / "mine.zip"
    mine.write_bytes(packed)
    source = replace(SOURCES["emo-db"], clips=N_CLIPS)
    found = fetch_corpus(source, tmp_path, archive=mine, quiet=True)
    assert (found["clips"], found["state"]) == (6, "fetched")
    data = tmp_path
    with pytest.raises(DownloadError, match="bc696df654c87fed845eb13823edef8a"):
        fetch_corpus(SOURCES["ravdess"], data, archive=mine, quiet=True)
    assert mine.read_bytes() == packed


# --- TESS: a list of files, each with its MD5 ------------------------------------------------


@pytest.fixture
def tess(site: Site, tmp_path: Path, write_tone: Callable[..., Path]) -> Source:
    files = []
    for number, emotion in enumerate(("angry", "happy", "sad", "ps")):
        name = f"OAF_back_{emotion}.wav"
        data = write_tone(tmp_path / "made" / name, seconds=0.2, seed=number).read_bytes()
        site.pages[f"/api/access/datafile/{number}"] = Page(data)
        md5 = hashlib.md5(data).hexdigest()
        files.append({"label": name, "dataFile": {"id": number, "filename": name, "md5": md5}})
    files.append({"dataFile": {"id": 99, "filename": "README.txt", "md5": "0" * 32}})
    listing = {"status": "OK", "data": {"latestVersion": {"files": files}}}
    source = replace(
        SOURCES["tess"], clips=4, listing=SOURCES["tess"].listing.replace(
            "https://borealisdata.ca", site.url)
    )  # fmt: skip
    site.pages[source.listing.removeprefix(site.url)] = Page(json.dumps(listing).encode())
    return source


def test_a_dataverse_is_fetched_file_by_file_and_goes_on(
    tess: Source, site: Site, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    bad = site.pages["/api/access/datafile/3"]
    site.pages["/api/access/datafile/3"] = Page(b"other bytes")
    with pytest.raises(DownloadError, match=r"OAF_back_ps\.wav: not what it should be"):
        fetch_corpus(tess, data, quiet=True)
    assert not (tmp_path / "data" / "tess").exists()
    assert discover(tmp_path / "data") == []  # what has come so far is nobody's corpus
    site.pages["/api/access/datafile/3"] = bad
    assert fetch_corpus(tess, data, quiet=True)["clips"] == 4
    assert [len(site.pages[f"/api/access/datafile/{n}"].asked) for n in range(4)] == [1, 1, 1, 1]
    assert len(list((tmp_path / "data" / "tess").iterdir())) == 4


@pytest.mark.parametrize("listing", [
    b"<html>", b"[]", b"[" * 100_000, b'{"data": {"latestVersion": {"files": [{"dataFile": 3}]}}}',
    b'{"data": {"latestVersion": {"files": []}}}',
    b'{"data": {"latestVersion": {"files": [{"directoryLabel": "../..", "dataFile": '
    b'{"id": 1, "filename": "OAF_a_sad.wav", "md5": "0"}}]}}}',
    b'{"data": {"latestVersion": {"files": [{"dataFile": '
    b'{"id": "1/../../x", "filename": "OAF_a_sad.wav", "md5": "0"}}]}}}',
])  # fmt: skip
def test_a_list_that_is_none_or_leads_out_is_refused(
    tess: Source, site: Site, tmp_path: Path, listing: bytes
) -> None:
    site.pages[tess.listing.removeprefix(site.url)] = Page(listing)
    with pytest.raises(DownloadError):
        fetch_corpus(tess, tmp_path / "data", quiet=True)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".downloads"]


# --- the command -----------------------------------------------------------------------------


def test_the_command_fetches_and_counts(
    run: Callable[..., CompletedProcess[str]], emo_db: Source, site: Site, tmp_path: Path
) -> None:
    """The official EMO-DB has 535 clips, the one here six: status 3, and what is there stays."""
    env = {"SER_EMBED_DATA": str(tmp_path / "data")}
    done = run("-c", DOWNLOAD, site.url, "--json", "--keep", env=env)
    assert done.returncode == 3, done.stderr
    assert "licence free for research" in done.stderr.splitlines()[0]
    assert "holds 6 of the 535 clips" in done.stderr
    (found,) = json.loads(done.stdout.splitlines()[-1])["corpora"]
    assert (found["clips"], found["state"]) == (6, "fetched")
    assert (tmp_path / "data/.downloads/emo-db-download.zip").exists()
    done = run("-m", "ser_embed.corpora", tmp_path / "data", "--corpus", "emo-db", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["clips"] == 6


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["atlantis"], "no corpus 'atlantis'; there are ravdess, ravdess-song, tess, urdu"),
        (["savee"], "asks everyone to register"),
        (["crema-d"], "git lfs install"),
        (["ravdess", "tess", "--archive", "x.zip"], "--archive is of one corpus"),
        (["savee", "--archive", "nowhere.zip"], "nowhere.zip: no such file"),
        (["urdu"], "127.0.0.1:9 can't be reached"),
    ],
)
def test_what_can_not_be_fetched_is_an_error_in_words(
    args: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(SOURCES, "urdu", at(SOURCES["urdu"], "http://127.0.0.1:9/urdu.zip"))
    assert download.main([*args, "--data-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert "{folder}" not in error


def test_the_wrong_archive_leaves_nothing(
    site: Site, packed: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    site.pages["/Audio_Speech_Actors_01-24.zip"] = Page(packed)
    address = f"{site.url}/Audio_Speech_Actors_01-24.zip"
    monkeypatch.setitem(SOURCES, "ravdess", at(SOURCES["ravdess"], address))
    assert download.main(["ravdess", "--data-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "bc696df654c87fed845eb13823edef8a" in error
    assert hashlib.md5(packed).hexdigest() in error
    assert [p.name for p in tmp_path.rglob("*") if p.suffix != ".lock"] == [".downloads"]


@pytest.mark.parametrize("args", [[], ["--list"]])
def test_the_list_names_all_with_licence_and_address(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert download.main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(SOURCES)
    for line, source in zip(lines, SOURCES.values(), strict=True):
        for words in (source.corpus, str(source.clips), CORPORA[source.corpus].licence,
                      source.page):  # fmt: skip
            assert words in line
    assert download.main(["--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["corpora"]
    assert {row["corpus"] for row in rows if row["checksum"]} == {"ravdess", "ravdess-song", "tess"}


# --- the table -------------------------------------------------------------------------------


def test_every_known_corpus_has_a_source() -> None:
    assert set(SOURCES) == set(CORPORA)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_source_is_available_in_one_way(source: Source) -> None:
    assert [bool(source.archive), bool(source.listing), bool(source.by_hand)].count(True) == 1
    assert source.page.startswith(("https://", "http://"))
    if source.archive:
        assert isinstance(source.archive, Archive)
        assert source.archive.url.startswith(("https://", "http://"))
        assert source.archive.name.endswith(".zip")
        assert re.fullmatch(r"(md5:[0-9a-f]{32})?", source.archive.checksum)
        assert source.archive.members >= source.clips
        assert source.archive.unpacked > source.archive.megabytes


@pytest.mark.parametrize("name", ["ravdess", "tess", "urdu"])
def test_official_numbers_are_those_of_the_real_corpora(shared: Path, name: str) -> None:
    from ser_embed.corpora.listing import read_corpus

    assert len(read_corpus(shared / "corpora" / name, name).utterances) == SOURCES[name].clips


def test_official_number_of_crema_d_is_that_of_its_list(shared: Path) -> None:
    names = (shared / "corpora/cremad/filenames.txt").read_text().split()
    assert len(names) == SOURCES["crema-d"].clips
