"""Unpacking: good archives come out whole, hostile ones leave nothing, inside or outside."""

import gzip
import io
import stat
import struct
import sys
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ser_embed.corpora.archives import Limits, member_path, unpack
from ser_embed.errors import DownloadError

LIMITS = Limits(bytes=1_000_000, members=50)
FILES = {"a/one.wav": b"1" * 5000, "a/b/two.wav": b"22", "näme.txt": b""}


def make_zip(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files:
            info = zipfile.ZipInfo(name)
            info.filename = name  # ZipInfo would cut it at a NUL
            packed.writestr(info, data, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path: Path, files: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return path


MAKERS: dict[str, Callable[[Path, Iterable[tuple[str, bytes]]], Path]] = {
    "zip": make_zip, "tar": make_tar,
}  # fmt: skip


def everything(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


def refused(archive: Path, limits: Limits = LIMITS) -> str:
    """Unpack what must not be unpacked, see that nothing came of it, and return the message."""
    root = archive.parent
    before = sorted(root.rglob("*"))
    with pytest.raises(DownloadError) as error:
        unpack(archive, root / "deep" / "corpus", limits)
    left = [path for path in sorted(root.rglob("*")) if path not in before]
    assert left in ([], [root / "deep"])
    return str(error.value)


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_a_good_archive_comes_out_whole(tmp_path: Path, mode: str) -> None:
    archive = tmp_path / "archive"
    if mode == "zip":
        make_zip(archive, FILES.items())
    else:
        make_tar(archive, FILES.items(), mode)
    assert unpack(archive, tmp_path / "corpus", LIMITS) == 3
    assert everything(tmp_path / "corpus") == FILES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["archive", "corpus"]


def test_folders_and_backslashes_are_taken(tmp_path: Path) -> None:
    archive = make_zip(
        tmp_path / "a.zip", [("x/", b""), ("./x/y.wav", b"1"), ("x\\z\\w.wav", b"2")]
    )
    unpack(archive, tmp_path / "corpus", LIMITS)
    assert everything(tmp_path / "corpus") == {"x/y.wav": b"1", "x/z/w.wav": b"2"}


BAD_NAMES = [
    "../out.wav", "a/../../out.wav", "/tmp/out.wav", "//server/share/out.wav", "..\\out.wav",
    "C:\\out.wav", "c:out.wav", "\\\\server\\out.wav", "a/b:stream.wav", "a/con", "NUL.wav",
    "a/LPT1.txt", "a./b.wav", "a /b.wav", "a/b\n.wav", "a/\x1b[2Jb.wav", "a/b*.wav",
    "x" * 256 + ".wav", "/".join("x" * 200 for _ in range(6)), "/".join("x" * 30),
]  # fmt: skip


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    archive = MAKERS[kind](tmp_path / "bad", [("good.wav", b"1"), (name, b"evil")])
    assert "its member" in refused(archive)


def test_a_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("aXb.wav", b"1")])
    archive.write_bytes(archive.read_bytes().replace(b"aXb.wav", b"a\0b.wav"))
    assert "control characters" in refused(archive)


LINKS = {"symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE,
         "device": tarfile.CHRTYPE, "disk": tarfile.BLKTYPE}  # fmt: skip


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("target", ["/etc/passwd", "../../out", "inside.wav"])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: str, target: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as packed:
        info = tarfile.TarInfo("inside.wav")
        packed.addfile(info)
        info = tarfile.TarInfo("a")
        info.type, info.linkname = LINKS[kind], target
        packed.addfile(info)
        info = tarfile.TarInfo("a/through.wav")  # what a followed link would write through
        info.size = 4
        packed.addfile(info, io.BytesIO(b"evil"))
    assert "'a' is a link or a device" in refused(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        info = zipfile.ZipInfo("a")
        info.create_system = 3  # Unix
        info.external_attr = (kind | 0o777) << 16
        packed.writestr(info, "/etc/passwd")
    assert "'a' is a link or a device" in refused(tmp_path / "a.zip")


COLLISIONS = [
    ("a.wav", "A.WAV"), ("a.wav", "a.wav"), ("x/a.wav", "X/b.wav"), ("a", "a/b.wav"),
    ("a/b.wav", "a"), ("straße.wav", "STRASSE.wav"),
    (unicodedata.normalize("NFC", "é.wav"), unicodedata.normalize("NFD", "é.wav")),
]  # fmt: skip


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("names", COLLISIONS, ids=map("-".join, COLLISIONS))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_one_on_some_disk_are_refused(
    tmp_path: Path, kind: str, names: tuple[str, str]
) -> None:
    archive = MAKERS[kind](tmp_path / "bad", [(name, b"1") for name in names])
    assert "collides with another" in refused(archive)


# --- bombs -----------------------------------------------------------------------------------


def test_declared_sizes_are_bounded(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [(f"{i}.wav", bytes(300_000)) for i in range(4)])
    assert archive.stat().st_size < 5000
    assert "unpacks to more than the 1 MB" in refused(archive)
    archive = make_tar(tmp_path / "a.tar", ((f"{i}.wav", bytes(300_000)) for i in range(4)), "w:xz")
    assert "unpacks to more than the 1 MB" in refused(archive)


def test_members_are_counted(tmp_path: Path) -> None:
    for kind, make in MAKERS.items():
        archive = make(tmp_path / kind, ((f"{i}.wav", b"") for i in range(51)))
        assert "more than the 50 members" in refused(archive)
    folders = make_zip(tmp_path / "folders", ((f"{i}/", b"") for i in range(51)))
    assert "more than the 50 members" in refused(folders)


def test_a_zip_that_declares_less_than_it_holds_is_refused(tmp_path: Path) -> None:
    data = bytes(900_000)
    archive = make_zip(tmp_path / "a.zip", [("a.wav", data)])
    raw, true, less = archive.read_bytes(), struct.pack("<I", len(data)), struct.pack("<I", 10)
    assert raw.count(true) == 2  # in the member's own header and in the directory
    archive.write_bytes(raw.replace(true, less))
    assert "damaged" in refused(archive)  # its CRC is not that of its first 10 bytes
    crc, first = (struct.pack("<I", zlib.crc32(d)) for d in (data, data[:10]))
    archive.write_bytes(raw.replace(true, less).replace(crc, first))
    unpack(archive, tmp_path / "corpus", LIMITS)  # what it declares is what is taken
    assert everything(tmp_path / "corpus") == {"a.wav": data[:10]}


def test_a_zip_that_declares_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("a.wav", b"12345")])
    raw = archive.read_bytes().replace(struct.pack("<I", 5), struct.pack("<I", 500))
    archive.write_bytes(raw)
    assert "a.zip" in refused(archive)


def test_a_tar_whose_header_is_the_bomb_is_bounded(tmp_path: Path) -> None:
    """An extended header is read whole before a member is seen."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 500_000_000
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(20):
            file.write(bytes(1_000_000))
    assert "unpacks to more than the 1 MB" in refused(tmp_path / "a.tar.gz")


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.wav")
    info.type = tarfile.GNUTYPE_SPARSE
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as packed:
        packed.addfile(info)
    assert "sparse" in refused(tmp_path / "a.tar")


# --- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_damage_is_reported_and_leaves_nothing(tmp_path: Path, mode: str) -> None:
    archive = tmp_path / "archive"
    data = bytes(range(256)) * 40
    if mode == "zip":
        make_zip(archive, [("a.wav", data), ("b.wav", data)])
    else:
        make_tar(archive, [("a.wav", data), ("b.wav", data)], mode)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(archive)


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x05\x06" + bytes(18), b"\x1f\x8b"])
def test_what_is_no_archive_is_reported_or_empty(tmp_path: Path, data: bytes) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(data)
    if data.startswith(b"PK"):
        assert unpack(archive, tmp_path / "corpus", LIMITS) == 0
    else:
        assert "not a zip or tar archive" in refused(archive)


def test_an_encrypted_zip_is_reported(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("a.wav", b"12345")])
    raw = bytearray(archive.read_bytes())
    raw[6] |= 1  # the flag, in the member's own header
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    archive.write_bytes(bytes(raw))
    assert "is encrypted" in refused(archive)


def test_what_a_killed_run_left_is_removed_first(tmp_path: Path) -> None:
    left = tmp_path / ".unpacking-corpus" / "half.wav"
    left.parent.mkdir()
    left.write_bytes(b"1")
    unpack(make_zip(tmp_path / "a.zip", FILES.items()), tmp_path / "corpus", LIMITS)
    assert everything(tmp_path / "corpus") == FILES
    assert not left.parent.exists()


def test_a_folder_that_is_there_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "mine.wav").write_bytes(b"mine")
    with pytest.raises(OSError, match="not empty"):
        unpack(make_zip(tmp_path / "a.zip", FILES.items()), tmp_path / "corpus", LIMITS)
    assert everything(tmp_path / "corpus") == {"mine.wav": b"mine"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "corpus"]


# --- any name at all -------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["..", ".", "", "a", "A", " ", "con", "C:", "~", "\\", "é", "e\u0301", "\0", "\udce9", "a.",
     "x" * 300, "\u202e", "\u3000", "／", "．．"]
)  # fmt: skip
NAMES = st.one_of(
    st.text(st.characters(), max_size=40),
    st.tuples(st.lists(PIECES, max_size=8), st.sampled_from("/\\")).map(lambda t: t[1].join(t[0])),
)


@settings(max_examples=500, derandomize=True, deadline=None)
@example("....//....//x")
@example("a/..\\..\\../x")
@given(NAMES)
def test_any_name_stays_inside_or_is_refused(name: str) -> None:
    try:
        path = member_path(name)
    except DownloadError:
        return
    if path is None:
        assert set(name) <= set("./\\")
        return
    for flavour in (PurePosixPath, PureWindowsPath):
        seen = flavour(str(path))
        assert not seen.is_absolute()
        assert not seen.drive
        assert not seen.root
        assert ".." not in seen.parts
        assert [p for p in seen.parts if p != "."] == list(path.parts)
    assert all(len(part.encode()) <= 255 for part in path.parts)
    assert member_path(str(path)) == path  # a name that was taken means the same place


@settings(
    max_examples=80, derandomize=True, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.lists(NAMES, min_size=1, max_size=4), st.sampled_from(sorted(MAKERS)))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_of_any_names_writes_only_inside(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], kind: str
) -> None:
    root = tmp_path_factory.mktemp("any")
    try:
        archive = MAKERS[kind](root / "archive", [(name, b"1") for name in names])
    except (UnicodeError, ValueError, struct.error):
        return  # what the library itself can't write
    folder = root / "deep" / "corpus"
    try:
        unpack(archive, folder, LIMITS)
    except DownloadError:
        assert not folder.exists()
    outside = [p for p in root.rglob("*") if not p.is_relative_to(folder)]
    assert set(outside) <= {root / "archive", root / "deep"}
    assert not any(p.is_symlink() for p in root.rglob("*"))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    st.sampled_from(["zip", "w", "w:gz"]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_flipped_bytes_give_an_archive_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, mode: str, flips: list[tuple[int, int]]
) -> None:
    root = tmp_path_factory.mktemp("flip")
    archive = root / "archive"
    if mode == "zip":
        make_zip(archive, FILES.items())
    else:
        make_tar(archive, FILES.items(), mode)
    raw = bytearray(archive.read_bytes())
    for place, value in flips:
        raw[place % len(raw)] = value
    archive.write_bytes(bytes(raw))
    try:
        unpack(archive, root / "deep" / "corpus", LIMITS)
    except DownloadError:
        assert not (root / "deep" / "corpus").exists()
    assert all(p.is_relative_to(root / "deep") for p in root.rglob("*") if p != archive)


if sys.platform == "win32":
    pytestmark = pytest.mark.skip(reason="the archives are made with names of POSIX")
