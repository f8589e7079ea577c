"""``featcache compare``: results to tables and pictures."""

import sys
from pathlib import Path

import click

from featcache.cli.options import PATH


@click.command(epilog="Exit codes: 0 done, 2 bad input.")
@click.argument("results", nargs=-1, required=True, type=PATH, metavar="RESULTS...")
@click.option(
    "--out",
    default="comparison",
    show_default=True,
    type=PATH,
    help="Folder of tables (md, tex, csv) and pictures (png, svg).",
)
@click.option("--reference", help="Set a paper's numbers beside ours, marked as the paper's: unmute.")
@click.option(
    "--draws",
    type=click.IntRange(0),
    default=2000,
    show_default=True,
    help="Of the paired bootstrap over test clips (recordings, where known); 0 leaves it out.",
)
def compare(results: tuple[Path, ...], out: Path, reference: str | None, draws: int) -> None:
    """Compare encoders, data sets and heads over RESULTS (folders or files of 'featcache probe').

    Prints scores (mean ± sd over seeds, in cross-validation over folds; best in bold, second
    underlined), ranks of encoders per head and whether the best head is better by a paired bootstrap;
    draws win matrices and rank changes.

    Nothing is averaged that is not a seed or a fold: runs of other rates, epochs, losses, presets,
    manifests … are rows or columns of their own, named by what differs. A single run has no sd and
    wins nothing. ‡ marks heads short of their plateau, and rates at the edge of their range; § a fixed
    number of epochs.

    \b
    featcache compare results
    featcache compare results/ other/results.jsonl --reference unmute --out tables
    """
    from featcache.heads.report.compare import compare as run
    from featcache.heads.report.formats import markdown

    done = run(results, out, reference=reference, draws=draws)
    second = "_{}_" if on_terminal() else "<u>{}</u>"
    click.echo("\n\n".join(markdown(grid, second) for grid in done.grids))
    if done.unmatched:
        click.echo(f"\n{done.unmatched}", err=True)
    click.echo(f"\nwritten: {', '.join(str(path) for path in done.files)}", err=True)


def on_terminal() -> bool:
    """Whether people read what is printed, and no Markdown reader."""
    return sys.stdout.isatty()
