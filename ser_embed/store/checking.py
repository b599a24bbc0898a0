"""What a store holds, and whether it is what was written."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ser_embed.command import DONE, FAILED, Outcome
from ser_embed.store.earlier import LAYOUT_BEFORE, digest_before
from ser_embed.store.options import StoreConfig
from ser_embed.store.reader import FeatureStore
from ser_embed.store.table import FAILED_CLIP, LEFT_OUT, STORED, checksum

__all__ = ["describe", "verify"]


def verify(path: Path) -> list[str]:
    """Read a store whole and return what is wrong with it, in words; empty if nothing is."""
    try:
        with FeatureStore(path) as store:  # raises if table or settings are others
            faults = []
            if int(store.attributes["schema"]) == LAYOUT_BEFORE:
                whole = digest_before(store.attributes, store.each_row(), store.frames)
                if whole != store.attributes["digest"]:
                    faults.append("the table or the settings are not what was written")
            for index, row in enumerate(store.each_row()):
                if row.is_stored:
                    clip = store.clip(index)
                    if checksum(clip.features, clip.extrema) != row.checksum:
                        faults.append(f"{row.path}: the features are not what was written")
            return faults
    except Exception as error:  # a damaged file can raise anything
        return [f"can't be read whole: {error}"]


def describe(config: StoreConfig) -> Outcome:
    """Print a store's settings, counts and faults."""
    with FeatureStore(config.file) as store:
        clips = store.clips
        stored = clips[clips["state"] == STORED]
        failed, left_out = (clips[clips["state"] == state] for state in (FAILED_CLIP, LEFT_OUT))
        result: dict[str, Any] = {
            "store": str(config.file), "corpus": store.corpus, "clips": len(stored),
            "shape": list(store.shape), "megabytes": round(config.file.stat().st_size / 1e6, 1),
            "hours": round(float(stored["seconds"].sum()) / 3600, 3),
            "speakers": int(stored["speaker"].nunique()),
            "emotions": dict(Counter(stored["emotion"])),
            "encoder trained": store.trained, "key": store.settings.key,
            "settings": asdict(store.settings),
            "failed": dict(zip(failed["path"], failed["reason"], strict=True)),
            "left out": dict(zip(left_out["path"], left_out["reason"], strict=True)),
        }  # fmt: skip
    if config.verify:
        result["faults"] = verify(config.file)
    if not config.json:
        for name, value in result.items():
            lines = value.items() if isinstance(value, dict) else None
            counted = name in ("failed", "left out")
            print(f"{name:16} {len(value) if counted else '' if lines else value}")
            for key, item in lines or ():
                print(f"{'':16} {key}: {item}")
        if config.verify and not result["faults"]:
            print("every clip is what was written")
    return Outcome(result, FAILED if result.get("faults") else DONE)
