"""Ending a shard where other writers may be at the same one: one of them wins, and any can finish for it.

A writer's files lie under temporary names of its own until they are complete and durable. It then
publishes ``ledger/123.commit``, which names it and lists them; only one such file can be there. What
follows can be done by anyone who finds that file, and more than once: the files take their final names,
``ledger/123.json`` is written, and the other file goes. So no lock is needed, and a writer may die at
any instant.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from featcache.cache.format.durable import partial_path, publish_file, replace_file, sync_directory
from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import LEDGER, Entry, Finished, entry_file, parse
from featcache.errors import CacheError
from featcache.files import parse_json, read_bytes
from featcache.jsonl import Line, encode

_COMMIT = re.compile(r"(\d+)\.commit").fullmatch


def publish(cache: Path, entry: Entry, writer: str) -> bool:
    """Say which writer's temporary files are the shard's: the first to say so wins.

    Returns:
        Whether this one did; if so, its files must stay until the shard is finished.
    """
    text = encode({"writer": writer, "entry": entry.record()}).encode()
    return publish_file(cache / LEDGER / f"{entry.shard}.commit", text)


def finish_all(cache: Path, layout: CacheLayout, finished: Finished) -> None:
    """Finish every shard whose writer was stopped after it had won."""
    for file in list((cache / LEDGER).iterdir()):
        if number := _COMMIT(file.name):
            finish(cache, layout, int(number[1]), finished)


def finish(cache: Path, layout: CacheLayout, shard: int, finished: Finished) -> None:
    """Do what is left to do of a shard whose writer is known.

    Raises:
        CacheError: what that writer left cannot be read.
    """
    file = cache / LEDGER / f"{shard}.commit"
    try:
        record: Any = parse_json(read_bytes(file))
        writer, entry = str(record["writer"]), parse(Line(1, record["entry"], False))
    except FileNotFoundError:  # another process has done it all
        finished.read_again()
        return
    except (ValueError, KeyError, TypeError):
        writer, entry = "", None
    # The names too: whoever gave us the cache must not have us rename other files.
    if not (entry and entry.shard == shard and set(entry.files) <= set(layout.shard_files(shard))
            and re.fullmatch(r"[\w-]+", writer)):  # fmt: skip
        raise CacheError(f"{file} cannot be read; remove it, and the next extract writes that shard again")
    if not finished.has_now(shard):  # else the writer that won was late: its files stay what they are
        for name in entry.files:
            with suppress(FileNotFoundError):  # another process was quicker
                partial_path(cache / name, writer).rename(cache / name)
        if all((cache / name).exists() for name in entry.files):  # else somebody removed one: write it again
            for directory in sorted({(cache / name).parent for name in entry.files}):
                sync_directory(directory)
            replace_file(cache / entry_file(shard), encode(entry.record()).encode())
            finished.add(entry)
    file.unlink(missing_ok=True)
