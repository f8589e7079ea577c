"""The tables that bench_store.py prints."""

import os
import platform
from pathlib import Path

import numpy as np


def describe_machine(folder: Path) -> str:
    """Processor, cores, memory and the disk's read-ahead: what the numbers depend on."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    device = os.stat(folder).st_dev
    ahead = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/queue/read_ahead_kb")
    kilobytes = ahead.read_text().strip() + " KiB" if ahead.exists() else "unknown"
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}; read-ahead of the disk {kilobytes}; "
        f"load {os.getloadavg()[0]:.1f}."
    )


def table(title: str, rates: dict[str, list[float]], reference: str) -> str:
    """Median GB/s with quartiles, and the median of the ratios to the reference of the same turn."""
    lines = [f"### {title}", "", f"| method | GB/s (quartiles) | x {reference} |", "|---|---|---|"]
    for name, values in sorted(rates.items(), key=lambda item: -float(np.median(item[1]))):
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        ratio = float(np.median(np.array(values) / np.array(rates[reference])))
        lines.append(f"| {name} | {middle:.2f} ({low:.2f} to {high:.2f}) | {ratio:.2f} |")
    return "\n".join(lines) + "\n"
