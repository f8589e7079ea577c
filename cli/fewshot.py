"""``featcache fewshot``: so many training clips of each class."""

import math
from pathlib import Path

import click

from featcache.cli.options import PATH

SHOWN = 10


@click.command()
@click.argument("manifest", type=PATH)
@click.option("--shots", type=click.IntRange(1), required=True, help="Training clips of each class.")
@click.option("--out", required=True, type=PATH, help="The manifest to write.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draw.")
@click.option(
    "--max-seconds",
    type=click.FloatRange(0, min_open=True),
    default=20.0,
    show_default=True,
    help="Longest recording [s] that is drawn from; inf for any.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was drawn as one JSON object.")
def fewshot(manifest: Path, shots: int, out: Path, seed: int, max_seconds: float, as_json: bool) -> None:
    """Draw a few training clips of each class of MANIFEST; other splits stay as they are.

    The same seed draws the same clips, and those for few shots are among those for more. Tokens need not be
    extracted again: probe the old cache with the new manifest.

    \b
    featcache fewshot hsn.csv --shots 64 --seed 1 --out hsn-64.csv
    featcache probe caches/hsn.zarr --manifest hsn-64.csv --head protobin
    """  # fmt: skip
    import json

    from featcache.errors import InputError
    from featcache.manifest import read_manifest, write_manifest
    from featcache.manifest.fewshot import few_shot
    from featcache.output import keeping, writable_file

    if math.isnan(max_seconds):
        raise InputError("max_seconds is no number; wanted seconds above 0", options=("max_seconds",))
    drawn = few_shot(read_manifest(manifest), shots, seed=seed, max_seconds=max_seconds)
    writable_file(out)
    with keeping(out, "nothing was written"):
        write_manifest(out, drawn.clips)
    train = sum(clip.split == "train" for clip in drawn.clips)
    if as_json:
        found = {"manifest": str(out), "train": train, "clips": len(drawn.clips), "short": dict(drawn.short)}
        click.echo(json.dumps(found))
        return
    click.echo(f"{out}: {train} train clips of {shots} shots, {len(drawn.clips) - train} other clips")
    if drawn.short:
        listed = ", ".join(f"{label} {number}" for label, number in [*drawn.short.items()][:SHOWN])
        more = " …" if len(drawn.short) > SHOWN else ""
        click.echo(f"{len(drawn.short)} classes have fewer: {listed}{more}", err=True)
