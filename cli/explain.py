"""``featcache explain``: a page about a trained head."""

from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


def _roots(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in given:
        old, equals, new = text.partition("=")
        if not (old and equals):
            raise click.BadParameter(f"{text!r} is not OLD=NEW", ctx, parameter)
        pairs[old] = new
    return pairs


@click.command(epilog="Exit codes: 0 done, 1 failed, 2 bad input, 130 stopped.")
@click.argument("head", metavar="HEAD|RESULTS", type=PATH)
@click.option("--out", type=PATH, default="explain.html", show_default=True, help="The page.")
@click.option("--manifest", type=PATH, help="Clips to show; the manifest that was probed by default.")
@click.option("--cache", type=PATH, help="Where the cache lies now, if it has moved.")
@click.option(
    "--audio-root", "audio_roots", multiple=True, metavar="OLD=NEW", callback=_roots,
    help="Where audio lies now: paths that begin with OLD begin with NEW (may be repeated).",
)  # fmt: skip
@click.option("--clips", type=click.IntRange(1), default=8, show_default=True, help="Clips shown.")
@click.option("--classes", type=click.IntRange(1), default=20, show_default=True, help="Classes shown.")
@click.option("--prototypes", type=click.IntRange(1), default=3, show_default=True, help="Of each class.")
@click.option("--patches", type=click.IntRange(1), default=3, show_default=True, help="Of each prototype.")
@click.option("--max-mb", "most_mb", type=float, default=40, show_default=True, help="Refuse a larger page.")
def explain(head: Path, **options: Any) -> None:
    """Write a page that shows what HEAD, or the last result in a folder RESULTS, has learned.

    Prototypes with the train patches that they are most like, and clips with the evidence for each class
    over the spectrogram, to look at and to listen to. Of other heads: attention, or class activation.

    \b
    featcache explain results/heads/eat-esc50-protobin-0f3c.safetensors --out dog.html
    featcache explain results --clips 20 --audio-root /old/disk=/new/disk
    """
    from featcache.heads.explain.explain import explain as run

    done = run(head, **options)
    for note in done.notes:
        click.echo(note, err=True)
    click.echo(
        f"{done.path}: {done.num_bytes / 1e6:.1f} MB, {done.classes} classes, {done.clips} clips; open it in "
        "a browser"
    )
