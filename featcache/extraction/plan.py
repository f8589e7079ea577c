"""What an extraction will cost, known before it starts: bytes against free space, hours, and what binds."""

import math
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from featcache.cache.format.dtypes import STORE_DTYPES
from featcache.cache.format.durable import PARTIAL
from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import Finished
from featcache.cache.write.recovery import finished_keys, open_layout
from featcache.errors import InputError
from featcache.extraction.rates import Rates
from featcache.machine.disk import free_bytes, nearest_folder
from featcache.manifest import Clip
from featcache.units import bytes_text

MEASURED_FROM = 1024  # clips from which every run measures a sample first: then it is 2 % of the work at most


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cost of one extraction. What is None was not measured."""

    clips: int  # to encode or to copy
    present: int  # in the cache already, or twice in the manifest, or unreadable
    layers: int
    tokens: int  # of one layer of these clips, padding counted: so many are stored
    dtype: str
    num_bytes: int  # that these clips will take; with a codec, at most
    layer_bytes: dict[str, int]  # storage dtype -> bytes of one layer of these clips
    free: int  # [bytes] where the cache will be
    writers: int  # that share the work
    under_way: int = 0  # [bytes] of these clips that writers at work have on disk and not yet counted
    compile_seconds: float | None = None  # that compiling the encoder took; once, and in none of what follows
    audio_seconds: float | None = None  # of these clips, as much as is encoded; from the sample's mean
    rates: Rates | None = None
    hours: float | None = None
    binds: str | None = None  # decode, encode or write: the slowest alone
    epoch_minutes: float | None = None  # of probing: to read these clips from this disk once
    break_even_epochs: int | None = None  # None too where encoding anew is as fast as reading

    @property
    def fits(self) -> bool:
        """Whether these clips fit."""
        return self.num_bytes - self.under_way <= self.free


def pending_clips(
    cache: Path,
    layout: CacheLayout,
    clips: Sequence[Clip],
    keys: Sequence[bytes | None],
    elsewhere: Set[bytes] = frozenset(),
) -> list[Clip]:
    """The clips that ``cache``, which need not be there, does not hold yet; nothing is written.

    Args:
        elsewhere: keys that count as present

    Raises:
        MismatchError: the cache there holds other tokens.
    """
    known = set(elsewhere)
    if (cache / "zarr.json").exists():
        stored, _ = open_layout(cache, layout)
        known |= finished_keys(cache, Finished(cache, stored.shard_rows))
    wanted: dict[bytes, Clip] = {}
    for clip, key in zip(clips, keys, strict=True):
        if key is not None and key not in known:
            wanted.setdefault(key, clip)
    return list(wanted.values())


def plan_sizes(cache: Path, layout: CacheLayout, clips: int, present: int, writers: int = 1) -> Plan:
    """What can be said without decoding a clip.

    Args:
        clips: to encode
        present: that need not be
    """
    dtypes = [name for name in STORE_DTYPES if _takes(layout, name)]
    return Plan(
        clips=clips, present=present, layers=len(layout.layers), tokens=clips * layout.num_tokens,
        dtype=layout.dtype, num_bytes=clips * layout.clip_bytes, free=free_bytes(cache), writers=writers,
        layer_bytes={name: clips * _layer_bytes(layout, name) for name in dtypes},
        under_way=_under_way(cache, layout) if writers > 1 else 0,
    )  # fmt: skip


def require_room(plan: Plan, cache: Path, layout: CacheLayout) -> None:
    """Refuse what cannot fit.

    Raises:
        InputError: the disk has less room than these clips take; the message says what would fit.
    """
    if plan.fits or layout.codec is not None:  # what a codec saves is not known before
        return
    fitting = {name: size * plan.layers for name, size in plan.layer_bytes.items()
               if size * plan.layers <= min(plan.free, plan.num_bytes - 1)}  # fmt: skip
    advice = f"store it as {max(fitting, key=lambda name: fitting[name])}, " if fitting else ""
    layers = "keep fewer layers, " if plan.layers > 1 else ""
    raise InputError(
        f"{plan.clips:,} clips take {bytes_text(plan.num_bytes)} as {layout.dtype}, and "
        f"{nearest_folder(cache)} has {bytes_text(plan.free)} free; {advice}{layers}make room, or choose "
        "another place",
        options=("out", "store_dtype"),
    )


def with_rates(plan: Plan, rates: Rates, *, shared: bool) -> Plan:
    """The plan with what follows from measured rates.

    Args:
        shared: decoding and encoding take turns on the same cores, instead of each having its own
    """
    seconds = {"decode": 1 / rates.decode, "encode": 1 / rates.encode, "write": 1 / rates.write}
    computed = seconds["decode"] + seconds["encode"] if shared else max(seconds["decode"], seconds["encode"])
    each = max(computed, seconds["write"])
    reading = plan.num_bytes / rates.read
    saved = computed * plan.clips - reading  # [s] of each epoch
    compute = max(("decode", "encode"), key=lambda name: seconds[name])
    return replace(
        plan,
        rates=rates,
        audio_seconds=rates.audio_seconds * plan.clips,
        hours=each * plan.clips / plan.writers / 3600,
        binds="write" if seconds["write"] > computed else compute,
        epoch_minutes=reading / 60,
        break_even_epochs=math.ceil(each * plan.clips / saved) if saved > 0 else None,
    )


def _under_way(cache: Path, layout: CacheLayout) -> int:
    """[bytes] of shards that fill."""
    total = 0
    for layer in layout.layers:
        for file in (cache / layout.tokens(layer).name).glob(f"*{PARTIAL}"):
            with suppress(FileNotFoundError):  # it may just have got its name
                total += 512 * file.stat().st_blocks
    return total


def _layer_bytes(layout: CacheLayout, dtype: str) -> int:
    return replace(layout, dtype=dtype, layers=layout.layers[:1]).clip_bytes


def _takes(layout: CacheLayout, dtype: str) -> bool:
    try:
        replace(layout, dtype=dtype)
    except InputError:  # int4 of an odd width
        return False
    return True
