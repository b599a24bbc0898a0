"""Which file a corpus's features belong in: two corpora of one name never share one."""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

from ser_embed.audio import AudioFile
from ser_embed.corpora import CORPORA, Listing
from ser_embed.errors import AudioError, StoreError
from ser_embed.store import PARTIAL, FeatureSettings, FeatureStore

__all__ = ["store_path"]

log = logging.getLogger(__name__)

COMPARED = 16  # clips whose bytes are compared


def store_path(folder: Path, settings: FeatureSettings, listing: Listing) -> tuple[Path, Listing]:
    """Return the file of a corpus's features, `<folder>/<corpus>-<encoder>-<key>.h5`, and the
    listing.

    If that holds another corpus of the same name, from another root, eight digits of the root
    follow the corpus's name; those of a table are in the listing's names too, since its speakers
    are other people. A corpus that was moved or copied, or of which a folder is named, is the
    same one.
    """
    root = listing.root.resolve()
    digest = hashlib.sha256(str(root).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    own = settings.path(folder, f"{listing.corpus}-{digest}")
    path = settings.path(folder, listing.corpus)
    if any(_files(own)) or not _is_of(path, listing, root):
        log.info("%s is of another corpus named %s: %s", path.name, listing.corpus, own.name)
        path = own
        if listing.corpus not in CORPORA and not listing.synthetic:
            listing = listing.renamed(f"{listing.corpus}-{digest}")
    if not any(_files(path)):
        _name_earlier(path, settings, listing.corpus)
    return path, listing


def _files(path: Path) -> Iterator[Path]:
    """Yield a store's files: the finished one, and what killed runs left, earlier ones too."""
    for file in (path, path.with_name(path.name + PARTIAL)):
        if file.is_file():
            yield file
    for ending in (".parts", ".shards"):
        yield from sorted(path.with_name(path.name + ending).glob("*.h5"))


def _is_of(path: Path, listing: Listing, root: Path) -> bool:
    """Return whether a store that may not be there yet is of a listing's corpus."""
    file = next(_files(path), None)
    if file is None:
        return True
    try:
        with FeatureStore(file) as store:
            before = Path(store.root)
            if before == root:
                return True
            if listing.corpus in CORPORA or listing.synthetic:  # its names say what a file is
                nested = before.is_relative_to(root) or root.is_relative_to(before)
                return nested or _has_the_same_clips(store, listing)
            return not before.exists() and _has_the_same_clips(store, listing)
    except StoreError:
        return True  # damaged: whoever opens it says so


def _has_the_same_clips(store: FeatureStore, listing: Listing) -> bool:
    """Return whether clips of one name are of the same bytes, by a few of them."""
    rows = [row for row in store.each_row() if row.is_stored]
    rows = rows[:: -(-len(rows) // COMPARED) or 1]
    found: dict[str, list[Path]] = {Path(row.path).name: [] for row in rows}
    for utterance in listing.utterances:
        if utterance.path.name in found:
            found[utterance.path.name].append(utterance.path)
    same = [
        any(_hash(path) == row.sha256 for path in found[Path(row.path).name])
        for row in rows if found[Path(row.path).name]
    ]  # fmt: skip
    return bool(same) and all(same)


def _hash(path: Path) -> str:
    try:
        return AudioFile(path).sha256()
    except AudioError:
        return ""


def _name_earlier(path: Path, settings: FeatureSettings, corpus: str) -> None:
    """Say of a store that would do, but for what it doesn't say, why another is made."""
    for file in FeatureStore.find(path.parent):
        try:
            with FeatureStore(file) as store:
                if store.corpus != corpus or store.settings.configuration:
                    continue
                if not settings.differences(store.settings):
                    log.info(
                        "%s was made before a store's key covered the encoder's configuration and "
                        "feature extractor, so its features may be of others: %s is made anew. "
                        "The old one still serves for training and evaluation; delete it when "
                        "you don't need it, since train takes every store of the folder",
                        file.name, path.name,
                    )  # fmt: skip
        except StoreError:
            continue
