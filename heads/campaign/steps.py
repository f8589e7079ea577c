"""What was done of a cell, and of what: a line for each step in ``steps.jsonl`` in the cell's folder.

A step counts as done where its line is of the same settings, and what it made is still there.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featcache.cache.survey import describe
from featcache.errors import FeatcacheError, InputError
from featcache.files import reason
from featcache.heads.campaign.study import StudyCell
from featcache.heads.report.results import Result, digest_of, known_results
from featcache.jsonl import append_lines, records

STEPS = "steps.jsonl"
# Where and how fast something runs decides nothing.
PLACE = ("device", "batch_size", "workers", "threads", "decode_timeout", "device_cache", "verify")
PROBE_PLACE = tuple(name for name in PLACE if name != "batch_size")  # there it decides


def extract_key(cell: StudyCell, manifest_digest: str) -> str:
    """What an extraction is of."""
    encoder = cell.encoder
    how = {name: value for name, value in cell.extract.items() if name not in PLACE}
    return digest_of([encoder.encoder, encoder.weights, dict(encoder.options), how, manifest_digest])


def probe_key(cell: StudyCell, heads: tuple[str, ...], extracted: str) -> str:
    """What the results of a cell are of."""
    how = {name: value for name, value in cell.probe.items() if name not in PROBE_PLACE}
    return digest_of([extracted, list(heads), how])


def last_step(cell: StudyCell, name: str, key: str) -> dict[str, Any] | None:
    """The last line of a step of these settings."""
    path = cell.results / STEPS
    try:
        lines = records(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({reason(error).lower()})") from None
    found = [line for line in lines if line.get("step") == name and line.get("key") == key]
    return found[-1] if found else None


def add_step(cell: StudyCell, name: str, key: str, facts: Mapping[str, Any]) -> None:
    """Write down that a step is done."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    append_lines(cell.results / STEPS, [{"step": name, "key": key, "time": now, **facts}])


def extracted(cell: StudyCell, key: str) -> dict[str, Any] | None:
    """The line of a finished extraction whose cache and weights are as they were then."""
    step = last_step(cell, "extract", key)
    if step is None or step.get("weights") not in (None, weights_state(cell)):
        return None
    try:
        whole = describe(cell.cache)["complete"]
    except FeatcacheError:
        whole = False
    return step if whole and Path(step["manifest"]).is_file() else None


def probed(cell: StudyCell, key: str) -> list[Result] | None:
    """The results of a finished probe."""
    step = last_step(cell, "probe", key)
    known = known_results(cell.results) if step else {}
    runs = step["runs"] if step else []
    return [known[run] for run in runs] if runs and all(run in known for run in runs) else None


def weights_state(cell: StudyCell) -> list[int] | None:
    """Size and time of a file of weights: another file under its name is other weights."""
    try:
        stat = Path(cell.encoder.weights or "").stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]
