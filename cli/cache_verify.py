"""``featcache cache verify``: is every file of a cache as it was written?"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featcache.cli.options import AS_JSON, PATH

if TYPE_CHECKING:
    from featcache.cache.verify import Check


@click.command()
@click.argument("path", type=PATH)
@click.option("--repair", is_flag=True, help="Take damaged shards out, so that extract writes them again.")
@AS_JSON
def verify(path: Path, repair: bool, as_json: bool) -> None:
    """Recompute every checksum of the cache at PATH; exit with 1 where something is damaged or unreadable.

    Every file of the finished shards is compared with its length and checksum in the ledger. What has no
    checksum is compared with what must be there: zarr.json with the layout and the ledger, runs.jsonl
    and failed.jsonl with the form of their lines. A manifest in the cache is compared with its checksum.

    \b
    featcache cache verify caches/mae.zarr
    featcache cache verify caches/mae.zarr --repair
    """  # fmt: skip
    from featcache.cache.verify import check_cache, repair_cache

    check = check_cache(path, progress=True)
    damaged = [damage for damage in check.damages if not (damage.unreadable or damage.lasting)]
    removed = repair_cache(path, damaged) if repair and damaged else []
    if as_json:
        click.echo(json.dumps({**asdict(check), "removed": removed}))
    else:
        for damage in check.damages:
            where = "" if damage.shard is None else f"shard {damage.shard}: "
            click.echo(f"{where}{damage.file} {damage.reason}")
        for line in _verdict(path, check, repair, removed):
            click.echo(line)
    if len(damaged) < len(check.damages) or (damaged and not repair):
        raise click.exceptions.Exit(1)


def _verdict(path: Path, check: "Check", repair: bool, removed: list[int]) -> Iterator[str]:
    if check.writer:
        yield f"a writer is at work ({check.writer}): {check.shards} finished shards are checked"
    unreadable = sum(damage.unreadable for damage in check.damages)
    if unreadable:
        yield (
            f"nothing is taken out of {unreadable} files that cannot be read or hold labels of their own; "
            "see to the disk or its rights, or run the extract command again, and verify again"
        )
    lasting = sum(damage.lasting for damage in check.damages)
    if lasting:
        yield f"{lasting} files that every shard needs are damaged; copy the cache again, or remove it"
    if not check.damages:
        rest = "" if check.writer else ", and the metadata and records can be read and agree"
        yield (
            f"{path}: {check.shards} shards, {check.files} files, {check.num_bytes / 1e9:.3f} GB: "
            f"every length and checksum is the ledger's{rest}"
        )
    elif unreadable + lasting == len(check.damages):
        return
    elif not repair:
        yield f"run 'featcache cache verify {path} --repair', then the extract command again"
    elif removed:
        shards = f"shard{'s' if len(removed) > 1 else ''} {', '.join(map(str, removed))}"
        yield f"took out {shards}; run the extract command again to write what it held"
    else:
        yield "mended; there was no shard to take out"
