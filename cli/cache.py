"""``featcache cache``: look at, check, derive, share and remove token caches."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featcache.cli.cache_remote import pull, push
from featcache.files import quoted

if TYPE_CHECKING:
    from featcache.cache.verify import Check
    from featcache.heads.probing.audit import Audit

PATH = click.Path(path_type=Path)
_SHOWN = 5  # outlier channels
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for a script to read.")


@click.group()
def cache() -> None:
    """Look at, check, derive, share and remove token caches.

    \b
    featcache cache ls caches
    featcache cache info caches/mae.zarr
    featcache cache verify caches/mae.zarr --repair
    featcache cache convert caches/mae.zarr caches/mae-int8.zarr --dtype int8
    """  # fmt: skip


cache.add_command(push)
cache.add_command(pull)


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
    from dataclasses import asdict

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
@click.argument("source", type=PATH)
@click.argument("target", type=PATH)
@click.option("--dtype", help="float16, float32, bfloat16, int8 or int4; as in SOURCE unless given.")
@click.option("--layers", help="all, 12, 1-12 or 6,12; as in SOURCE unless given.")
@click.option("--codec", help="zstd or blosc, for an archive copy; not compressed unless given.")
@click.option("--shard-clips", type=int, help="Clips a shard; about 192 MB unless given.")
def convert(
    source: Path,
    target: Path,
    dtype: str | None,
    layers: str | None,
    codec: str | None,
    shard_clips: int | None,
) -> None:
    """Derive the cache TARGET from SOURCE without the encoder.

    \b
    featcache cache convert caches/mae.zarr caches/mae-int8.zarr --dtype int8
    featcache cache convert caches/mae.zarr caches/mae-last.zarr --layers 12
    """  # fmt: skip
    from featcache.cache import TokenCache
    from featcache.cache.convert import convert_cache
    from featcache.extraction.layers import parse_layers

    kept = None
    if layers not in (None, "all"):
        kept = parse_layers(layers, max(TokenCache.open(source).layers))
    done = convert_cache(
        source, target, dtype=dtype, layers=kept, codec=codec, shard_clips=shard_clips, progress=True
    )
    click.echo(f"{target}: {len(done)} clips, {done.dtype}, layers {', '.join(map(str, done.layers))}")


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


@cache.command()
@click.argument("path", type=PATH)
@click.option("--manifest", required=True, type=PATH, help="Labels and splits of the cache's clips.")
@click.option("--dtype", "dtypes", multiple=True, default=("float16", "int8", "int4"), show_default=True)
@click.option(
    "--head", "heads", multiple=True, help="Heads to train; linear-mean, mhca and protobin unless given."
)
@click.option(
    "--clips", default=1000, show_default=True, help="At most so many train and so many test clips."
)
@click.option("--epochs", default=15, show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Runs of each head; scores are their means.")
@AS_JSON
def audit(path: Path, manifest: Path, heads: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Say what storing the cache at PATH more coarsely would cost: the same heads trained on both.

    PATH is a cache at full precision (float32, or float16). The error is relative to all tokens' length, and
    per channel to its standard deviation. The interval (95 %) is over test clips drawn with replacement.

    \b
    featcache cache audit caches/mae.zarr --manifest clips.csv --dtype int8 --dtype int4
    """  # fmt: skip
    from dataclasses import asdict

    from featcache.cache import TokenCache
    from featcache.cache.read.join import join
    from featcache.heads.data.tasks import questions
    from featcache.heads.probing.audit import AUDITED, audit_cache
    from featcache.manifest import load_manifest

    opened, clips = TokenCache.open(path, checked=True), load_manifest(manifest)
    say = partial(click.echo, err=True)
    joined = join(opened, clips, say)
    keys = [opened.keys[row].tobytes() for _, row in joined]
    (question, *_) = questions(clips, joined, name=clips.path.stem, say=say, keys=keys)
    if not as_json:
        click.echo(
            "| head | dtype | bytes a token | error | error per channel: median, worst | metric | full "
            "| stored | difference (95 %) |"
        )
        click.echo("|---|---|---|---|---|---|---|---|---|")
    for row in audit_cache(opened, question, options.pop("dtypes"), heads=heads or tuple(AUDITED), **options):
        click.echo(json.dumps(asdict(row)) if as_json else _audit_row(row))


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


def _audit_row(row: "Audit") -> str:
    cells = [row.head, row.dtype, f"{row.bytes_per_token:g}", f"{row.error:.1e}"]
    cells += [f"{row.channel_error:.1e}, {row.worst_channel_error:.1e}", row.metric]
    cells += [f"{row.full:.4f}", f"{row.stored:.4f}"]
    cells += [f"{row.difference:+.4f} ({row.low:+.4f} to {row.high:+.4f})"]
    return f"| {' | '.join(cells)} |"


def _percentage(row: dict[str, Any]) -> str:
    expected = row["clips_expected"]
    return f"{100 * row['clips'] / expected:.0f} %" if expected else "unfinished"


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


def _tree(record: dict[str, Any], indent: str = "  ") -> None:
    for field, value in record.items():
        if isinstance(value, dict):
            click.echo(f"{indent}{quoted(field)}:")
            _tree(value, indent + "  ")
        else:
            text = quoted(value) if isinstance(value, str) else json.dumps(value)
            click.echo(f"{indent}{quoted(field)}: {text}")
