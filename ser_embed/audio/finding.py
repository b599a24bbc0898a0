"""Which audio files a folder holds: links are followed, what can't be read is reported."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ser_embed.audio.constants import AUDIO_ENDINGS
from ser_embed.errors import AudioError

__all__ = ["Found"]


@dataclass
class Found:
    """What a folder holds.

    Attributes:
        files: The audio files, sorted.
        faults: Path and reason of each folder that can't be read, link that leads nowhere, and
            thing with an audio file's ending that is no file.
        others: How many files there are of each other ending.
    """

    files: list[Path] = field(default_factory=list)
    faults: list[tuple[Path, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    @classmethod
    def under(cls, root: Path) -> "Found":
        """Search a folder in any nesting; a file is itself what is found.

        A folder that links lead to several times is searched once, by its own way where it has
        one under `root`; a link to a folder that holds `root` is passed over. Hidden folders are
        left out: they hold unfinished or discarded files.

        Raises:
            AudioError: `root` doesn't exist or can't be read.
        """
        found = cls()
        if root.is_file():
            found._add_file(root)
            return found
        if not root.is_dir():
            raise AudioError(f"{root}: no such folder or file")
        whole = root.resolve()
        seen: set[tuple[int, int]] = set()
        folders, links = [root], list[Path]()
        while folders or links:
            links.sort(reverse=True)
            folder = (folders or links).pop()
            try:
                status = folder.stat()
                identity = status.st_dev, status.st_ino
                is_loop = folder != root and whole.is_relative_to(folder.resolve())
                if identity in seen or is_loop:
                    continue
                seen.add(identity)
                with os.scandir(folder) as entries:
                    inside = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                reason = f"the folder can't be read ({error.strerror or error})"
                if folder == root:
                    raise AudioError(f"{root}: {reason}") from error
                found.faults.append((folder, reason))
                continue
            for entry in inside:
                path = folder / entry.name
                if _is_folder(entry):
                    if not entry.name.startswith("."):
                        (links if entry.is_symlink() else folders).append(path)
                else:
                    found._add(path, entry)
        found.files.sort()
        found.faults.sort()
        return found

    def _add(self, path: Path, entry: "os.DirEntry[str]") -> None:
        if path.name.startswith("._"):  # left by macOS archives
            return
        leads_nowhere = entry.is_symlink() and not path.exists()
        if leads_nowhere and not path.name.startswith("."):
            self.faults.append((path, f"a link to {path.readlink()}, which isn't there"))
        elif path.suffix.lower() in AUDIO_ENDINGS and not entry.is_file():
            self.faults.append((path, "neither a file nor a folder"))
        elif entry.is_file():
            self._add_file(path)

    def _add_file(self, path: Path) -> None:
        if path.suffix.lower() in AUDIO_ENDINGS:
            self.files.append(path)
        elif not path.name.startswith("."):
            self.others[path.suffix.lower() or "no ending"] += 1


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in circles
        return False
