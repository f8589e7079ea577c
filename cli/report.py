"""``featcache report``: results as one page to sort and filter."""

from pathlib import Path

import click

from featcache.cli.options import PATH


@click.command(epilog="Exit codes: 0 done, 1 failed, 2 bad input.")
@click.argument("results", nargs=-1, required=True, type=PATH, metavar="RESULTS...")
@click.option("--out", default="report.html", show_default=True, type=PATH, help="The page.")
@click.option("--reference", help="Set a paper's numbers beside ours, marked as the paper's: unmute.")
@click.option(
    "--draws",
    type=click.IntRange(0),
    default=2000,
    show_default=True,
    help="Of the bootstrap over test clips; 0 leaves intervals and comparisons out.",
)
def report(results: tuple[Path, ...], out: Path, reference: str | None, draws: int) -> None:
    """Write RESULTS (folders or files of 'featcache probe') as one HTML page that needs no network.

    Rows are those of 'featcache compare', with intervals, seconds, marks and the command of each, to sort
    and filter; below are its tables and pictures, to download as CSV, LaTeX, Markdown and SVG.

    \b
    featcache report results --out report.html
    featcache report results/ other/results.jsonl --reference unmute
    """
    from featcache.heads.report.explorer import report as write
    from featcache.output import writable_file

    writable_file(out)
    num_bytes = write(results, out, reference=reference, draws=draws)
    click.echo(f"{out}: {num_bytes / 1e6:.1f} MB")
