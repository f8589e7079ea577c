"""``featcache explain``: what a head has learned, on one page."""

from pathlib import Path

import click

from featcache.cli.options import PATH


def _roots(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in given:
        old, equals, new = text.partition("=")
        if not (old and equals and new):
            raise click.BadParameter(f"{text!r} is not OLD=NEW", ctx, parameter)
        pairs[old] = new
    return pairs


@click.command(epilog="Exit codes: 0 done, 1 failed, 2 bad input, 130 stopped.")
@click.argument("head", type=PATH, metavar="HEAD|RESULT")
@click.option("--out", type=PATH, default="explain.html", show_default=True, help="The page.")
@click.option(
    "--manifest", type=PATH, help="Clips and labels; by default those that the head was trained on."
)
@click.option("--clips", type=click.IntRange(0), default=12, show_default=True, help="Test clips to show.")
@click.option(
    "--patches", type=click.IntRange(1), default=3, show_default=True, help="Train patches of each prototype."
)
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Show this class alone; repeatable.")
@click.option(
    "--audio-root", multiple=True, metavar="OLD=NEW", callback=_roots,
    help="Audio paths that begin with OLD begin with NEW on this machine; repeatable.",
)  # fmt: skip
def explain(
    head: Path, out: Path, manifest: Path | None, clips: int, patches: int, classes: tuple[str, ...],
    audio_root: dict[str, str],
) -> None:  # fmt: skip
    """Write a page to see and hear what HEAD has learned: prototypes, evidence or attention on clips.

    HEAD is a file of 'featcache probe', or a results folder, of which the best prototypical head on valid
    is taken. The page is one HTML file that needs no network.

    \b
    featcache explain results/heads/eat-birds-protobin-0f3c.safetensors --out page.html
    featcache explain results --clips 30 --audio-root /old/disk=/data
    """
    from featcache.heads.explain.page import explain as write
    from featcache.heads.explain.subject import open_subject
    from featcache.output import writable_file

    writable_file(out)
    subject = open_subject(head, manifest, audio_root)
    done = write(subject, out, clips=clips, patches=patches, classes=classes or None)
    for note in done.notes:
        click.echo(note, err=True)
    click.echo(f"{done.path}: {done.num_bytes / 1e6:.1f} MB, of {subject.path}")
