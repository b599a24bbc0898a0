"""`python -m ser_embed.download`: official corpora, fetched, checked, unpacked and counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ser_embed.command import Options, Outcome, data_folder, run_command

__all__ = ["DownloadConfig", "main"]


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
    keep: bool = False
    """Keep the archive after it is unpacked."""
    timeout: float = 30.0
    """Seconds without a byte after which a transfer ends."""


def _run(config: DownloadConfig) -> Outcome:
    from ser_embed.corpora.fetch import download, list_sources

    if config.list or not config.corpora:
        return list_sources(config.json)
    return download(
        config.corpora, config.data_dir or data_folder(), archive=config.archive,
        keep=config.keep, timeout=config.timeout, quiet=config.quiet,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m ser_embed.download`."""
    return run_command(_run, DownloadConfig, "python -m ser_embed.download", argv)


if __name__ == "__main__":
    raise SystemExit(main())
