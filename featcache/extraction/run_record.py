"""What a cache remembers of each run."""

import time
from pathlib import Path
from typing import Any

from featcache.devices import device_name, versions
from featcache.extraction.runner import Runner


def run_record(manifest: Path, title: str, runner: Runner, batch_size: int, compiled: bool) -> dict[str, Any]:
    """Where and with what this run computes: what a person looks for when canaries disagree."""
    return {
        "manifest": str(manifest.absolute()),
        "dataset": title,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "device": device_name(runner.device),
        "batch_size": batch_size,
        "compiled": compiled,
        "versions": versions(),
    }
