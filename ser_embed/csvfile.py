"""Text tables as programs save them: CSV, TSV and what Excel makes of either.

The encoding is found by its mark or by what the bytes allow (UTF-8, UTF-16, cp1252), the delimiter
by the header; a first line `sep=;`, empty rows, and capitals and spaces in the header are usual.
"""

import codecs
import csv
import logging
import os
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

__all__ = ["PARTS", "CsvFile", "file_on_disk", "says_nothing"]

log = logging.getLogger(__name__)

_NOTHING = frozenset({
    "", "nan", "na", "n/a", "n.a", "n.n", "#n/a", "#na", "none", "null", "nil", "nat", "n/k",
    "unknown", "unk", "unnamed", "undefined", "unspecified", "unidentified", "not available",
    "not known", "no name", "no speaker", "nobody", "missing", "anonymous", "anon", "tbd",
    "unknown speaker", "speaker unknown", "unbekannt", "inconnu", "desconocido", "-1", "-1.0",
})  # fmt: skip

PARTS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "devel": "val",
    "development": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Words of a split, in lower case, and the part that each means."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),  # before UTF-16's
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_FORMATS = {b"PK\x03\x04": "an Excel or LibreOffice workbook", b"\xd0\xcf\x11\xe0": "an old Excel "
            "workbook", b"PAR1": "a Parquet file", b"\x1f\x8b": "a gzip archive"}  # fmt: skip
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_BLOCK = 1 << 20


def says_nothing(cell: str) -> bool:
    """Return whether a cell is filled with a word or sign that names nothing.

    >>> says_nothing(" N/A "), says_nothing("<unk>"), says_nothing("--"), says_nothing("Nan Su")
    (True, True, True, False)
    """
    words = " ".join(cell.lower().replace("_", " ").split()).strip("<>()[]{}.?'\" ")
    return words in _NOTHING or not words.strip("-\N{EN DASH}\N{EM DASH}")


class CsvFile:
    """A table with a header; the rows are read as they are asked for.

    Args:
        file: The table.
        wanted: Columns that it must have; a name of several words `a|b` is any of them, `a` then.
        also: Columns that it may have, named in the same way.

    Attributes:
        header: Column names in lower case, spaces and dashes as `_`; the first of `a|b`.
        unused: Those that are neither wanted nor one of `also`.
        seen: The encoding and the delimiter, in words.

    Raises:
        ValueError: Not such a table; the message says what was seen and what to do.
        OSError: It can't be read.
    """

    def __init__(self, file: Path, wanted: Collection[str], also: Collection[str] = ()) -> None:
        self.file = file
        self._encoding = _encoding(file)
        first, skipped = self._first_line()
        self._skipped = skipped
        names = {alias: one.split("|")[0] for one in (*wanted, *also) for alias in one.split("|")}
        needed = {one.split("|")[0] for one in wanted}
        found = {d: _header(first, d, names) for d in _DELIMITERS}
        self._delimiter = max(found, key=lambda d: (len(needed & set(found[d])), len(found[d])))
        self.header = found[self._delimiter]
        many = len(self.header) > 1
        how = f"separated by {_DELIMITERS[self._delimiter]}" if many else "of one column"
        self.seen = f"{self._encoding.removesuffix('-sig')}, {how}"
        if not needed <= set(self.header):
            raise ValueError(
                f"the header is {first.strip()[:200] or 'empty'!r} ({self.seen}); it must name "
                + ",".join(one.split("|")[0] for one in wanted)
            )
        self._check_names(_words(first, self._delimiter))
        known = set(names.values())
        self.unused = [name for name in self.header if name and name not in known]

    def _check_names(self, words: Sequence[str]) -> None:
        for name in self.header:
            same = [w for w, one in zip(words, self.header, strict=True) if name and one == name]
            if len(set(same)) > 1:
                raise ValueError(
                    f"the columns {' and '.join(map(repr, same))} could both be {name!r}; give "
                    "that name to the one that is meant"
                )
            if len(same) > 1:
                raise ValueError(f"two columns of the header are called {name!r}")

    def _first_line(self) -> tuple[str, int]:
        """Return the header's line, and how many lines are before it."""
        with self.file.open(encoding=self._encoding, newline="") as lines:
            for number, line in enumerate(lines):
                if "\0" in line:
                    raise ValueError("holds NUL bytes; save it as CSV in UTF-8")
                if line.strip() and not line.lower().lstrip('"').startswith("sep="):
                    return line, number
        return "", 0

    def rows(self) -> Iterator[tuple[int, Mapping[str, str]]]:
        """Yield the line's number and the cells by column, stripped, of each row that isn't empty.

        Cells that a row lacks are "". What a row has more than the header, as with a comma in a
        path that isn't quoted, is under "+".

        Raises:
            ValueError: A quotation mark that is never closed, or NUL bytes.
        """
        with self.file.open(encoding=self._encoding, newline="") as lines:
            for _ in range(self._skipped):
                next(lines)
            reader = csv.reader(
                self._checked(lines), delimiter=self._delimiter, skipinitialspace=True, strict=True
            )
            next(reader, None)
            line = self._skipped + reader.line_num + 1
            try:
                for cells in reader:
                    number, line = line, self._skipped + reader.line_num + 1
                    stripped = [cell.strip() for cell in cells]
                    if any(stripped):
                        yield number, self._row(number, stripped)
            except csv.Error as error:
                raise ValueError(
                    f"line {line}: {error}; is there a quotation mark that isn't closed?"
                ) from error

    def _row(self, number: int, cells: list[str]) -> dict[str, str]:
        for cell in cells:
            if "\n" in cell or "\r" in cell:
                raise ValueError(
                    f"line {number}: a cell goes over several lines, from {cell[:60]!r} on; is "
                    "there a quotation mark that isn't closed?"
                )
        row = dict.fromkeys(self.header, "") | dict(zip(self.header, cells, strict=False))
        more = [cell for cell in cells[len(self.header) :] if cell]
        return row | {"+": self._delimiter.join(more)} if more else row

    def _checked(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            if "\0" in line:
                raise ValueError("holds NUL bytes; save it as CSV in UTF-8")
            yield line


def _words(line: str, delimiter: str) -> list[str]:
    """Return a header's cells in lower case, without the signs that nobody sees."""
    try:
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []
    shown = (c.replace("\u200b", "").replace("\ufeff", "") for c in cells)
    return ["_".join(c.replace("-", " ").replace("_", " ").lower().split()) for c in shown]


def _header(line: str, delimiter: str, names: Mapping[str, str]) -> Sequence[str]:
    words = _words(line, delimiter)
    # A column that bears the name itself goes before one that bears another word for it.
    return [names.get(word, word) if names.get(word, word) not in words else word for word in words]


def _encoding(file: Path) -> str:
    """Return the encoding that all of a file can be read in."""
    with file.open("rb") as stream:
        start = stream.read(4096)
        for magic, what in _FORMATS.items():
            if start.startswith(magic):
                raise ValueError(f"it is {what}; save it as CSV (UTF-8)")
        marked = [name for mark, name in _MARKS if start.startswith(mark)]
        encoding = marked[0] if marked else _without_mark(start)
        faults = []
        for candidate in (encoding, *(["cp1252"] if encoding == "utf-8" else [])):
            decoder = codecs.getincrementaldecoder(candidate)()
            stream.seek(0)
            try:
                while block := stream.read(_BLOCK):
                    decoder.decode(block)
                decoder.decode(b"", final=True)
            except UnicodeError as error:
                faults.append(f"not {candidate} ({error})")
                continue
            if faults:
                log.warning(
                    "%s: its text isn't UTF-8 and is read as %s, Western European; if names or "
                    "words come out wrong, save it as CSV (UTF-8)", file, candidate,
                )  # fmt: skip
            return candidate
    raise ValueError(f"its text is {', '.join(faults)}; save it as CSV (UTF-8)")


def _without_mark(start: bytes) -> str:
    """Tell UTF-16 that bears no mark by its zeros: every other byte of plain text."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    if odd > len(start) // 5 and not even:
        return "utf-16-le"
    if even > len(start) // 5 and not odd:
        return "utf-16-be"
    return "utf-8"


def _exists(path: str) -> bool:
    return os.path.lexists(path)  # False, not an error, for a name that no system allows


def file_on_disk(path: Path) -> Path:
    """Return the file that a name of a table means, where it is written in another way on disk.

    Windows separates folders by `\\`; macOS composes letters and accents otherwise; both take
    capitals for small letters. A name that could mean several files means none of them.
    """
    text = str(path)
    if _exists(text):
        return path
    plain = text.replace("\\", "/")
    for form in (plain, unicodedata.normalize("NFC", plain), unicodedata.normalize("NFD", plain)):
        if _exists(form):
            return Path(form)
    return _in_other_letters(Path(plain)) or Path(plain)


def _in_other_letters(path: Path) -> Path | None:
    """Return the one path on disk that differs in capitals and composition alone."""
    if path == path.parent or ".." in path.parts:
        return None
    folder = path.parent if _exists(str(path.parent)) else _in_other_letters(path.parent)
    if folder is None:
        return None
    try:
        name = _names(folder, folder.stat().st_mtime_ns).get(_folded(path.name))
    except OSError:  # no folder, or one that can't be read
        return None
    return folder / name if name else None


@lru_cache(maxsize=16)
def _names(folder: Path, changed: int) -> dict[str, str]:
    """Return what is in a folder by name in small letters, "" where several names are alike."""
    names: dict[str, str] = {}
    for path in folder.iterdir():
        key = _folded(path.name)
        names[key] = "" if key in names else path.name
    return names


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
