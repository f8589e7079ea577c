"""The cores of this process; without torch, for what is read before it is loaded."""

import os


def cores(beside: int = 1) -> int:
    """CPU cores that this process may use, or its part where so many share them: at least one."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, found // max(1, beside))
