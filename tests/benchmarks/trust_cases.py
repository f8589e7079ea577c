"""What the checks of ``bench_trust.py`` share: a case, how it ends, and small things to damage."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featcache.cache import CacheLayout, CacheWriter
from featcache.heads.probing.probe import probe
from featcache.manifest import Clip, write_manifest
from featcache.records import WINDOWS, add_run, record_failed

# What is tried, in words, and how: it returns "read", "refused" or "wrong"; a FeatcacheError is a refusal.
Case = tuple[str, Callable[[], str]]
Cases = Iterator[Case]
QUICK: dict[str, Any] = {"heads": ["linear", "protobin"], "epochs": 3, "batch_size": 16, "seeds": 1}
CLIPS, TOKENS, DIM = 80, 12, 16


def judge(sound: bool) -> str:
    """How a case ended that was not refused."""
    return "read" if sound else "wrong"


def make_cache(path: Path, *, dtype: str = "float16", codec: str | None = None) -> Path:
    """A cache of seeded tokens in three shards, with every kind of file, its labels among them."""
    dice = np.random.default_rng(0)
    directions = dice.standard_normal((3, DIM))
    layout = CacheLayout(
        fingerprint={"encoder": "fake", "weights": {"digest": "a1"}}, layers=(2,), num_tokens=TOKENS, dim=DIM,
        grid=(2, TOKENS // 2), has_cls=True, dtype=dtype, codec=codec, shard_clips=30,
    )  # fmt: skip
    clips = []
    with CacheWriter.create_or_open(path, layout) as writer:
        for index in range(CLIPS):
            own = np.flatnonzero(dice.random(3) < 0.5)
            tokens = dice.standard_normal((TOKENS, DIM)).astype(np.float32)
            for label in own:
                tokens[dice.integers(0, TOKENS // 2, 2)] += 2 * directions[label]
            values = torch.from_numpy(tokens)
            writer.add(
                f"clip{index}",
                index.to_bytes(16, "big"),
                {2: values},
                {2: values.mean(0)},
                8 + 4 * (index % 2),
            )
            split = ("train", "train", "valid", "test")[index % 4]
            labels = tuple(f"label{label}" for label in own)
            clips.append(Clip(id=f"clip{index}", path=Path(f"/none/{index}.wav"), labels=labels, split=split))
    clips.append(Clip(id="broken", path=Path("/none/broken.wav"), labels=("label0",), split="train"))
    write_manifest(path / WINDOWS, clips)
    add_run(path, {"manifest": str((path / WINDOWS).absolute()), "started": "now"})
    record_failed(path, {"broken"}, {"broken": "not audio"})
    return path


def scores(cache: Path, out: Path, **options: Any) -> list[Any]:
    """What a probe at its defaults reports, short training apart."""
    results = probe(cache, out=out, **{**QUICK, **options})
    return [
        (result["head"], result["valid"], result["test"], result.get("valid_scores")) for result in results
    ]


def files_of(folder: Path) -> list[Path]:
    """Every file below a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def damaged(data: bytes, dice: random.Random, kinds: Sequence[str] = ("flip", "cut", "empty")) -> bytes:
    """Bytes with one kind of damage; never the same bytes, unless there are none."""
    kind = dice.choice(list(kinds))
    if kind == "flip" and data:
        place = dice.randrange(len(data))
        return data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]
    if kind == "cut" and data:
        return data[: dice.randrange(len(data))]
    if kind == "zeros" and data:
        place = dice.randrange(len(data))
        size = min(len(data) - place, dice.randint(1, 512))
        return data[:place] + bytes(size) + data[place + size :]
    return data + dice.randbytes(dice.randint(1, 64)) if kind == "junk" else b""
