"""Where the corpora come from, as data: the official address, size and checksum of each.

A checksum is given only where the publisher states one. Where none is stated, the SHA-256 of the
first download is recorded next to it, and a later download is compared with that.
"""

from dataclasses import dataclass

__all__ = ["SOURCES", "Archive", "Source"]


@dataclass(frozen=True)
class Archive:
    """One archive that holds a whole corpus.

    Attributes:
        url: Official address.
        megabytes: What has to be fetched, about.
        unpacked: Megabytes on disk, about. Twice as much is refused as a bomb.
        members: Files and folders in it, about. Twice as many are refused.
        checksum: `md5:HEX` or `sha256:HEX` as the publisher states it, "" if none is stated.
    """

    url: str
    megabytes: int
    unpacked: int
    members: int
    checksum: str = ""

    @property
    def name(self) -> str:
        """File name that the address ends in."""
        return self.url.split("?")[0].rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Source:
    """How to get a corpus.

    Attributes:
        corpus: Name of the corpus, key of `naming.CORPORA`.
        page: Where a person reads about it and its licence.
        clips: Clips that the official release has.
        megabytes: What has to be fetched, about.
        archive: Its archive, None if it has none that can be fetched.
        listing: Address of a Dataverse's list of files, each with its MD5, "" if it isn't there.
        by_hand: What a person has to do instead, "" if the command can fetch it. `{folder}`
            is replaced by the folder for the clips.
    """

    corpus: str
    page: str
    clips: int
    megabytes: int
    archive: Archive | None = None
    listing: str = ""
    by_hand: str = ""


def _archived(corpus: str, page: str, clips: int, archive: Archive) -> Source:
    return Source(corpus, page, clips, archive.megabytes, archive)


_RAVDESS = "https://zenodo.org/records/1188976"

_ALL = (
    # Zenodo states an MD5 for each file of the record.
    _archived("ravdess", _RAVDESS, 1440, Archive(
        f"{_RAVDESS}/files/Audio_Speech_Actors_01-24.zip",
        megabytes=208, unpacked=600, members=1500,
        checksum="md5:bc696df654c87fed845eb13823edef8a",
    )),
    _archived("ravdess-song", _RAVDESS, 1012, Archive(
        f"{_RAVDESS}/files/Audio_Song_Actors_01-24.zip",
        megabytes=226, unpacked=600, members=1100,
        checksum="md5:5411230427d67a21e18aa4d466e6d1b9",
    )),
    # The University of Toronto's Dataverse states an MD5 for each of the 2,800 files, and packs
    # them into an archive only when asked, each time another.
    Source(
        "tess", "https://doi.org/10.5683/SP2/E8H2MF", 2800, 290,
        listing="https://borealisdata.ca/api/datasets/:persistentId/"
                "?persistentId=doi:10.5683/SP2/E8H2MF",
    ),
    # GitHub packs a commit when asked and states no checksum of the pack; a commit's files can't
    # change, so the commit is named.
    _archived("urdu", "https://github.com/siddiquelatif/URDU-Dataset", 400, Archive(
        "https://github.com/siddiquelatif/URDU-Dataset/archive/"
        "cab0028b1a1152e5cf25a5771c1ed137428a496e.zip",
        megabytes=75, unpacked=150, members=500,
    )),
    Source(
        "crema-d", "https://github.com/CheyneyComputerScience/CREMA-D", 7442, 600,
        by_hand="its audio is kept in git-lfs, so an archive of it holds pointers of 130 bytes. "
                "Install git and git-lfs (https://git-lfs.com), then:\n"
                "  git lfs install\n"
                "  git clone --depth 1 --filter=blob:none --sparse "
                "https://github.com/CheyneyComputerScience/CREMA-D {folder}\n"
                "  git -C {folder} sparse-checkout set AudioWAV\n"
                "and run this command again: it counts the clips",
    ),
    # Its site states no checksum.
    _archived("emo-db", "http://emodb.bilderbar.info", 535, Archive(
        "http://emodb.bilderbar.info/download/download.zip",
        megabytes=41, unpacked=150, members=5000,
    )),
    Source(
        "savee", "http://kahlan.eps.surrey.ac.uk/savee/", 480, 120,
        by_hand="it asks everyone to register. Fill in the form that its page links to under "
                "Download, fetch AudioData.zip with the name and password that come by mail, then "
                "give the file: python -m ser_embed.download savee --archive AudioData.zip",
    ),
    _archived("nemo", "https://github.com/amu-cai/nEMO", 4481, Archive(
        "https://github.com/amu-cai/nEMO/archive/cb2e832b701d28c92fa6d220a2d8293b685a1c77.zip",
        megabytes=450, unpacked=800, members=4500,
    )),
)  # fmt: skip

SOURCES: dict[str, Source] = {source.corpus: source for source in _ALL}
"""Where each known corpus comes from, by its name."""
