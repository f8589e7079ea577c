"""``featcache study``: encoders x data sets x heads from one file to one table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featcache.cli.options import PATH

if TYPE_CHECKING:
    from featcache.heads.campaign.plan import PlannedCell, StudyPlan
    from featcache.heads.campaign.run import StudyOutcome
    from featcache.heads.campaign.study import StudyFile


@click.command(
    epilog="Exit codes: 0 all cells asked for are done, 1 some are not, 2 bad input, 130 stopped (the same "
    "command goes on)."
)
@click.argument("file", required=False, type=PATH)
@click.option("--new", metavar="PRESET", help="Write a FILE to begin with: unmute, plateau, bat or fast.")
@click.option(
    "--only", multiple=True, metavar="KIND=NAME", help="Only encoder=NAME, or dataset=NAME (may be repeated)."
)
@click.option("--dry-run", is_flag=True, help="Print the plan: clips, hours, bytes, and what is missing.")
@click.option("--cells", is_flag=True, help="Print one command line for each cell that is not done.")
@click.option(
    "--launcher",
    type=click.Choice(["local", "slurm"]),
    default="local",
    show_default=True,
    help="slurm: hand the cells to sbatch as a job array, with the options under [slurm].",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan and what became of it as JSON.")
def study(
    file: Path | None,
    new: str | None,
    only: tuple[str, ...],
    dry_run: bool,
    cells: bool,
    launcher: str,
    as_json: bool,
) -> None:
    """Run the study of FILE (TOML): extract what is missing, probe, and write the report.

    A cell is one encoder on one data set. What is done is never done again; cells whose weights or data are
    missing are listed with the line that gets them, and the rest goes on.

    \b
    featcache study --new unmute
    featcache study unmute.toml --dry-run
    featcache study unmute.toml
    featcache study unmute.toml --only encoder=eat --only dataset=esc50
    """
    from featcache.heads.campaign.launch import command_lines, submit
    from featcache.heads.campaign.plan import plan_study
    from featcache.heads.campaign.settings import read_study

    if new is not None:
        _write(file or Path(f"{new}.toml"), new)
        return
    if file is None:
        raise click.UsageError("name the FILE of a study; --new unmute writes one to begin with")
    own = read_study(file)
    asked = own.cells(only)
    if not (dry_run or cells or launcher == "slurm"):
        _run(own, asked, as_json)
        return
    plan = plan_study(own, asked, progress=True)
    if cells or launcher == "slurm":
        left = [planned.cell for planned in plan.of("to extract", "to probe")]
        if cells:
            click.echo("\n".join(command_lines(own, left)))
        else:
            click.echo(submit(own, left) if left else "nothing is left to do")
        _print_missing(plan.missing)
    elif as_json:
        _print_json(plan)
    else:
        _print_plan(own, plan)


def _write(path: Path, preset: str) -> None:
    from featcache.heads.campaign.template import write_template

    write_template(path, preset)
    click.echo(f"{path}: set its folders, then see what is there: featcache study {path} --dry-run")


def _run(own: "StudyFile", asked: Any, as_json: bool) -> None:
    from featcache.cli.live import Live
    from featcache.heads.campaign.report import report_study
    from featcache.heads.campaign.run import run_study

    outcome = run_study(own, asked, say=lambda line: click.echo(line, err=True), progress=True, watch=Live())
    compared = report_study(own, outcome)
    if as_json:
        _print_json(outcome.plan, outcome, compared.files if compared else [])
    else:
        _print_missing({**outcome.missing, **outcome.failed})
        click.echo(f"{own.name}: {len(outcome.done)} of {len(outcome.plan.cells)} cells are done")
        if compared:
            click.echo(f"report: {compared.files[0]}")
    if not outcome.whole:
        raise click.exceptions.Exit(1)


def _print_plan(own: "StudyFile", plan: "StudyPlan") -> None:
    rows = [("encoder", "data set", "clips", "hours", "GB", "state"), *map(_row, plan.cells)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
    todo = plan.of("to extract")
    size = sum(planned.num_bytes or 0 for planned in todo)
    click.echo(
        f"{own.name}: {len(plan.cells)} cells x {len(own.heads)} heads; {len(plan.of('done'))} done, "
        f"{len(plan.of('to probe'))} to probe, {len(todo)} to extract "
        f"({sum(planned.clips for planned in todo):,} clips, {sum(planned.hours for planned in todo):,.4g} h "
        f"of audio, about {size / 1e9:,.4g} GB), {len(plan.of('missing'))} missing"
    )
    for note in plan.notes:
        click.echo(note, err=True)
    _print_missing(plan.missing)


def _row(planned: "PlannedCell") -> tuple[str, ...]:
    cell, size = planned.cell, planned.num_bytes
    told = "" if size is None else f"{'~' if planned.estimated else ''}{size / 1e9:.3g}"
    if planned.state == "missing" and not planned.clips:
        return cell.encoder.name, cell.dataset.name, "", "", "", planned.state
    return (
        cell.encoder.name, cell.dataset.name, f"{planned.clips:,}", f"{planned.hours:.3g}", told,
        planned.state,
    )  # fmt: skip


def _print_missing(missing: dict[str, str]) -> None:
    for what, line in missing.items():
        click.echo(f"{what}: {line}", err=True)


def _print_json(plan: "StudyPlan", outcome: "StudyOutcome | None" = None, files: Any = ()) -> None:
    import json

    done = {cell.title for cell in outcome.done} if outcome else set()
    rows = [
        {
            "encoder": own.cell.encoder.name, "dataset": own.cell.dataset.name, "clips": own.clips,
            "hours": own.hours, "bytes": own.num_bytes, "estimated": own.estimated,
            "state": "done" if own.cell.title in done else own.state,
            "cache": str(own.cell.cache), "results": str(own.cell.results),
        }
        for own in plan.cells
    ]  # fmt: skip
    missing, failed = (outcome.missing, outcome.failed) if outcome else (plan.missing, {})
    told = {"cells": rows, "missing": missing, "failed": failed, "report": [str(path) for path in files]}
    click.echo(json.dumps(told))
