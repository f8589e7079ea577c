"""``featcache compare``: results to tables and pictures."""

from pathlib import Path

import click


@click.command(epilog="Exit codes: 0 done, 2 bad input.")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RESULTS...")
@click.option(
    "--out",
    default="comparison",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of tables (md, tex, csv) and pictures (png, svg).",
)
@click.option("--reference", help="Set a paper's numbers beside ours, marked as the paper's: unmute.")
@click.option(
    "--draws",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Of the paired bootstrap over test clips; 0 leaves it out.",
)
def compare(results: tuple[Path, ...], out: Path, reference: str | None, draws: int) -> None:
    """Compare encoders, data sets and heads over RESULTS (folders or files of 'featcache probe').

    Prints scores (mean ± sd, best in bold, second underlined), ranks of encoders per head and
    whether the best head is better by a paired bootstrap; draws win matrices and rank changes.

    \b
    featcache compare results
    featcache compare results/ other/results.jsonl --reference unmute --out tables
    """
    from featcache.heads.report.compare import compare as run
    from featcache.heads.report.tables import markdown

    done = run(results, out, reference=reference, draws=draws)
    click.echo("\n\n".join(map(markdown, done.grids)))
    click.echo(f"\nwritten: {', '.join(str(path) for path in done.files)}", err=True)
