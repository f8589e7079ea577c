"""What a cache remembers of the runs that filled it: runs.jsonl and failed.jsonl beside the arrays.

Neither is part of the tokens' identity: labels and paths may change, the tokens stay what they are.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featcache.jsonl import append_lines, encode, records

RUNS = "runs.jsonl"
FAILED = "failed.jsonl"


def add_run(cache: Path, run: Mapping[str, Any]) -> None:
    """Append one extraction: its manifest, device, versions and settings."""
    append_lines(cache / RUNS, [run])


def last_manifest(cache: Path) -> Path | None:
    """The manifest that this cache was last extracted from; None if it was not recorded."""
    runs = [run for run in records(cache / RUNS) if run.get("manifest")]
    return Path(runs[-1]["manifest"]) if runs else None


def failed_clips(cache: Path) -> dict[str, str]:
    """Clip id -> why it has no tokens, for clips that could not be decoded when last tried."""
    return {entry["id"]: entry["reason"] for entry in records(cache / FAILED)}


def record_failed(cache: Path, tried: set[str], failed: Mapping[str, str]) -> None:
    """Replace what is recorded of the clips ``tried`` in this run; other clips' entries stay."""
    kept = {id_: reason for id_, reason in failed_clips(cache).items() if id_ not in tried}
    lines = [encode({"id": id_, "reason": reason}) for id_, reason in {**kept, **failed}.items()]
    target, temporary = cache / FAILED, cache / f"{FAILED}.{os.getpid()}.tmp"
    if not lines:
        target.unlink(missing_ok=True)
        return
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(target)
