"""A process that writes caches and may be killed: torch is imported once, each writer is forked.

Reads lines ``PATH CLIPS DIE_AT`` on standard input. For each it forks a writer of the cache at PATH
with CLIPS seeded clips and prints its pid; when that ended, its wait status and how many changes to
the file system it made. With DIE_AT > 0 the writer ends itself without any clean-up just before the
DIE_AT-th of them.
"""

import mmap
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch

from featcache.cache import CacheLayout, CacheWriter
from featcache.cache.write import native

LAYOUT = CacheLayout(
    fingerprint={"encoder": "fake"},
    layers=(6, 12),
    num_tokens=16,
    dim=32,
    grid=(2, 8),
    has_cls=True,
    dtype="int8",
    shard_clips=8,
)
CHANGES = ("write", "fsync", "rename", "replace", "link", "mkdir", "ftruncate", "truncate", "pwrite")


def main() -> None:
    torch.set_num_threads(1)
    native.library()  # compiled before any change is counted
    for line in sys.stdin:
        path, clips, die_at = line.split()
        counter = memoryview(mmap.mmap(-1, 8)).cast("q")  # shared with the child
        pid = os.fork()
        if pid == 0:
            count_changes(counter, int(die_at))
            write(path, int(clips))
            os._exit(0)
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], counter[0], flush=True)


def write(path: str, clips: int) -> None:
    """What extract does: add the clips that are not there, in order."""
    with CacheWriter.create_or_open(path, LAYOUT) as writer:
        for index in range(clips):
            key = index.to_bytes(16, "little")
            if key not in writer.done_keys:
                random = torch.Generator().manual_seed(index)
                tokens = {layer: torch.randn(16, 32, generator=random) for layer in LAYOUT.layers}
                writer.add(f"clip{index}", key, tokens, {6: tokens[6][0], 12: tokens[12][0]}, 16)


def count_changes(counter: memoryview, die_at: int) -> None:
    """Count the calls that change files; end the process before the ``die_at``-th."""
    lock = threading.Lock()

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            with lock:
                counter[0] += 1
                if counter[0] == die_at:
                    os._exit(9)
            return call(*arguments, **options)

        return wrapper

    os.fsync = os.fstat  # type: ignore[assignment]  # a process dies here, not the machine
    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))


if __name__ == "__main__":
    main()
