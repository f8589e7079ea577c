"""``featcache cache convert`` and ``audit``: caches of another storage dtype, and what that costs."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featcache.cli.options import AS_JSON, PATH

if TYPE_CHECKING:
    from featcache.heads.probing.audit import Audit


@click.command()
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


@click.command()
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


def _audit_row(row: "Audit") -> str:
    cells = [row.head, row.dtype, f"{row.bytes_per_token:g}", f"{row.error:.1e}"]
    cells += [f"{row.channel_error:.1e}, {row.worst_channel_error:.1e}", row.metric]
    cells += [f"{row.full:.4f}", f"{row.stored:.4f}"]
    cells += [f"{row.difference:+.4f} ({row.low:+.4f} to {row.high:+.4f})"]
    return f"| {' | '.join(cells)} |"
