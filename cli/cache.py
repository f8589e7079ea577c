"""``featcache cache``: look at, check, derive, share and remove token caches."""

import json
from pathlib import Path
from typing import Any

import click

from featcache.cli.cache_derive import audit, convert
from featcache.cli.cache_remote import pull, push
from featcache.cli.cache_verify import verify
from featcache.cli.options import AS_JSON, PATH
from featcache.files import quoted

_SHOWN = 5  # outlier channels


@click.group()
def cache() -> None:
    """Look at, check, derive, share and remove token caches.

    \b
    featcache cache ls caches
    featcache cache info caches/mae.zarr
    featcache cache verify caches/mae.zarr --repair
    featcache cache convert caches/mae.zarr caches/mae-int8.zarr --dtype int8
    """  # fmt: skip


for command in (verify, convert, audit, push, pull):
    cache.add_command(command)


@cache.command("ls")
@click.argument("directory", type=PATH, default=".")
@AS_JSON
def list_caches(directory: Path, as_json: bool) -> None:
    """List the token caches in DIRECTORY (this one unless given).

    \b
    featcache cache ls caches
    """  # fmt: skip
    from featcache.cache.survey import survey

    rows = survey(directory)
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo(f"no token caches in {directory}")
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        if row["problem"]:
            click.echo(f"{row['name']:{width}}  unreadable: {row['problem']}")
            continue
        state = "complete" if row["complete"] else _percentage(row)
        encoder = quoted(row["encoder"])
        click.echo(
            f"{row['name']:{width}}  {encoder:12}  {row['dtype']:8}  {row['clips']:>9} clips  "
            f"{row['bytes'] / 1e9:>9.3f} GB  {state}"
        )


@cache.command()
@click.argument("path", type=PATH)
@AS_JSON
def info(path: Path, as_json: bool) -> None:
    """Say what the cache at PATH holds: fingerprint, arrays, and clips that failed.

    \b
    featcache cache info caches/mae.zarr
    """  # fmt: skip
    from featcache.cache.survey import describe, describe_channels

    record: dict[str, Any] = {**describe(path), "channels": describe_channels(path)}
    if as_json:
        click.echo(json.dumps(record))
        return
    state = "complete" if record["complete"] else _percentage(record)
    click.echo(f"{path}: {record['clips']} clips in {record['shards']} shards, {state}")
    click.echo(f"{record['bytes'] / 1e9:.3f} GB, at most {record['shard_clips']} clips a shard")
    click.echo("fingerprint:")
    _tree(record["fingerprint"])
    click.echo("arrays:")
    for name, array in record["arrays"].items():
        click.echo(f"  {name:12} {array['dtype']:8} {tuple(array['shape'])}")
    for layer, channels in record["channels"].items():
        click.echo(f"layer {layer}: {_channels(channels)}")
    if record["parent"]:
        click.echo("converted from:")
        _tree(record["parent"])
    if record["failed"]:
        click.echo(f"{len(record['failed'])} clips failed:")
        _tree(record["failed"])


@cache.command()
@click.argument("paths", type=PATH, nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(paths: tuple[Path, ...], yes: bool) -> None:
    """Remove the token caches at PATHS: the files that a cache has; anything else among them stays.

    \b
    featcache cache rm caches/old.zarr
    """  # fmt: skip
    from featcache.cache.remove import check_removable, remove_cache
    from featcache.cache.survey import describe

    for path in paths:
        check_removable(path)
        record = describe(path)
        if not yes:
            size = f"{record['clips']} clips, {record['bytes'] / 1e9:.3f} GB"
            click.confirm(f"remove {path} ({size})?", abort=True)
        left = remove_cache(path)
        if left:
            names = ", ".join(map(quoted, left[:3])) + (", …" if len(left) > 3 else "")
            click.echo(f"removed the cache in {path}; what is not the cache's stays there: {names}")
        else:
            click.echo(f"removed {path}")


@cache.command()
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@AS_JSON
def diff(first: Path, second: Path, as_json: bool) -> None:
    """Print the fields in which two caches differ; exit with 1 where there are any.

    \b
    featcache cache diff caches/mae.zarr caches/mae-int8.zarr
    """  # fmt: skip
    from featcache.cache.format.fingerprint import fingerprint_differences
    from featcache.cache.survey import identity

    differences = fingerprint_differences(identity(first), identity(second))
    if as_json:
        records = [{"field": field, "first": one, "second": two} for field, one, two in differences]
        click.echo(json.dumps(records))
    else:
        for field, one, two in differences:
            click.echo(f"{field}: {json.dumps(one)} | {json.dumps(two)}")
        if not differences:
            click.echo("no difference: the tokens of both may be used as one")
    if differences:
        raise click.exceptions.Exit(1)


def _channels(channels: dict[str, Any]) -> str:
    loud = channels["outliers"]
    if not loud:
        return "no outlier channels (largest magnitude over 4 times the median channel's)"
    shown = [f"{own['channel']} ({own['largest']:.3g})" for own in loud[:_SHOWN]] + (
        ["…"] if loud[_SHOWN:] else []
    )
    return (
        f"{len(loud)} outlier channels (largest magnitude over 4 times the median channel's, "
        f"{channels['median']:.3g}): {', '.join(shown)}"
    )


def _percentage(row: dict[str, Any]) -> str:
    expected = row["clips_expected"]
    return f"{100 * row['clips'] / expected:.0f} %" if expected else "unfinished"


def _tree(record: dict[str, Any], indent: str = "  ") -> None:
    for field, value in record.items():
        if isinstance(value, dict):
            click.echo(f"{indent}{quoted(field)}:")
            _tree(value, indent + "  ")
        else:
            text = quoted(value) if isinstance(value, str) else json.dumps(value)
            click.echo(f"{indent}{quoted(field)}: {text}")
