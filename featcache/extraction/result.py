"""What one extraction did."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featcache.extraction.plan import Plan
    from featcache.extraction.stages import Stages


@dataclass(kw_only=True)
class Extraction:
    """What one run did."""

    cache: Path
    manifest: Path
    clips: int  # in the manifest, windows counted
    encoded: int = 0
    reused: int = 0  # copied from other caches
    present: int = 0  # already in this cache, or the same audio twice in the manifest
    canaries: int = 0  # stored clips that were encoded again and found the same
    failed: dict[str, str] = field(default_factory=dict)  # clip id -> reason
    # Clips longer than the encoder takes by more than a hundredth: only their beginning was encoded.
    cut: int = 0
    cut_median: float = 0.0  # [s] by which they are longer
    cut_largest: float = 0.0  # [s]
    num_bytes: int = 0  # of the cache on disk
    seconds: float = 0.0
    writer: str = "0/1"  # this run's share of the shards
    lost: list[int] = field(default_factory=list)  # shards that another writer finished meanwhile
    address: str | None = None  # where the shards were copied to, if not to a local cache
    plan: "Plan | None" = None  # what it was to cost
    stages: "Stages | None" = None  # where the time went, if clips were encoded
    complete: bool = True  # every clip of the manifest is stored or has failed, whoever wrote it
