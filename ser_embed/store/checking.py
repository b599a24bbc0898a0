"""What a store holds, and whether it is what was written."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ser_embed.command import DONE, FAILED, Outcome
from ser_embed.store.options import StoreConfig
from ser_embed.store.reader import FeatureStore
from ser_embed.store.table import FAILED_CLIP, LEFT_OUT, STORED, TableDigest, checksum

__all__ = ["describe", "verify"]


def _is_padded_with_zeros(store: FeatureStore, index: int, frames: int) -> bool:
    if store.settings.pool != "none":
        return True
    arrays = [store.read([index])]
    if "range" in store.file:
        arrays.append(store.read_range([index]))
    padding = [array[..., frames:, :] for array in arrays]
    return not any(np.ascontiguousarray(array).view(np.uint8).any() for array in padding)


def verify(path: Path) -> list[str]:
    """Read a store whole and return what is wrong with it, in words; empty if nothing is."""
    try:
        with FeatureStore(path) as store:
            faults = []
            attributes, frames = dict(store.file.attrs), store.frames
            digest = TableDigest(attributes)
            digest.add(store.each_row())
            if digest.finish(frames).encode() != attributes["digest"]:
                faults.append("the table or the settings are not what was written")
            for index, row in enumerate(store.each_row()):
                if row.is_stored:
                    features, extrema = store.own_part(index, int(frames[index]))
                    whole = checksum(features, extrema) == row.checksum
                    if not whole or not _is_padded_with_zeros(store, index, int(frames[index])):
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
