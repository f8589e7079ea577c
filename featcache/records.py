"""What a cache remembers of the runs that filled it: runs.jsonl and failed.jsonl beside the arrays.

Neither is part of the tokens' identity: labels and paths may change, the tokens stay what they are.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RUNS = "runs.jsonl"
FAILED = "failed.jsonl"


def add_run(cache: Path, run: Mapping[str, Any]) -> None:
    """Append one extraction: its manifest, device, versions and settings."""
    with (cache / RUNS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(run) + "\n")


def last_manifest(cache: Path) -> Path | None:
    """The manifest that this cache was last extracted from; None if it was not recorded."""
    runs = [run for run in _lines(cache / RUNS) if run.get("manifest")]
    return Path(runs[-1]["manifest"]) if runs else None


def failed_clips(cache: Path) -> dict[str, str]:
    """Clip id -> why it has no tokens, for clips that could not be decoded when last tried."""
    return {entry["id"]: entry["reason"] for entry in _lines(cache / FAILED)}


def record_failed(cache: Path, tried: set[str], failed: Mapping[str, str]) -> None:
    """Replace what is recorded of the clips ``tried`` in this run; other clips' entries stay."""
    kept = {id_: reason for id_, reason in failed_clips(cache).items() if id_ not in tried}
    lines = [json.dumps({"id": id_, "reason": reason}) + "\n" for id_, reason in {**kept, **failed}.items()]
    target, temporary = cache / FAILED, cache / f"{FAILED}.{os.getpid()}.tmp"
    if not lines:
        target.unlink(missing_ok=True)
        return
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(target)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file; a last line torn by a crash does not count."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries
