"""``featcache cache push`` and ``pull``: caches in buckets and on far disks."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featcache.cli.options import PATH, Place

if TYPE_CHECKING:
    from featcache.cache.remote.transferred import Transferred

WORKERS = click.option("--workers", type=click.IntRange(1), default=8, show_default=True, help="At a time.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")


@click.command()
@click.argument("path", type=PATH)
@click.argument("address", metavar="URL", type=Place())
@WORKERS
@AS_JSON
def push(path: Path, address: str | Path, workers: int, as_json: bool) -> None:
    """Copy the cache at PATH to URL: s3://, gs://, az://, hf-hub:OWNER/NAME, or a folder.

    Shards that are there are not copied again: the same command goes on after a stop, or adds new shards.

    \b
    featcache cache push caches/mae.zarr s3://bucket/mae.zarr
    featcache cache push caches/mae.zarr hf-hub:me/mae-esc50
    """  # fmt: skip
    from featcache.cache.remote.push import push as run

    _report(run(path, address, workers=workers, progress=True), as_json)


@click.command()
@click.argument("address", metavar="URL", type=Place())
@click.argument("path", type=PATH)
@click.option("--manifest", type=PATH, help="Only the shards that hold its clips.")
@click.option("--layers", help="Only these: 12, 1-12, 6,12, all or last; all by default.")
@WORKERS
@AS_JSON
def pull(
    address: str | Path, path: Path, manifest: Path | None, layers: str | None, workers: int, as_json: bool
) -> None:
    """Copy the cache at URL to PATH, whole or in part; every file is held to its checksum.

    The same command goes on after a stop, and adds shards that have come since.

    \b
    featcache cache pull s3://bucket/mae.zarr caches/mae.zarr
    featcache cache pull hf-hub:me/mae-esc50 mae.zarr --manifest few.csv --layers 12
    """  # fmt: skip
    from featcache.cache.format.layout import MAX_LAYER
    from featcache.cache.remote.pull import Layers
    from featcache.cache.remote.pull import pull as run
    from featcache.extraction.layers import parse_layers
    from featcache.manifest import load_manifest

    ids = [clip.id for clip in load_manifest(manifest)] if manifest else None
    wanted: Layers = None
    if layers == "last":
        wanted = "last"
    elif layers not in (None, "all"):
        wanted = parse_layers(layers, MAX_LAYER)
    _report(run(address, path, ids=ids, layers=wanted, workers=workers, progress=True), as_json)


def _report(done: "Transferred", as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(done)))
        return
    state = "" if done.complete else " (not all of the cache)"
    click.echo(
        f"{done.place}: {done.shards} shards copied ({done.num_bytes / 1e6:.1f} MB), {done.present} were "
        f"there; {done.clips:,} clips{state}"
    )
