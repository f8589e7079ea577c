"""The tables of a study: what is done, with a paper's numbers beside it, and what is not done and why."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from featcache.cache.format.durable import replace_file
from featcache.heads.campaign.run import StudyOutcome
from featcache.heads.campaign.sources import kept_source
from featcache.heads.campaign.steps import extract_key, probe_key, probed
from featcache.heads.campaign.study import StudyCell, StudyFile
from featcache.heads.report.compare import Comparison, compare_results
from featcache.heads.report.formats import markdown
from featcache.heads.report.results import Result
from featcache.heads.report.significance import DRAWS
from featcache.output import keeping

REPORT = "report.md"


def report_study(study: StudyFile, outcome: StudyOutcome, *, draws: int = DRAWS) -> Comparison | None:
    """Write the report of all cells that are done, whichever of them ran now; None where none is.

    Into ``report/`` in the results' folder: ``report.md``, and what ``compare`` writes.
    """
    cells = study.cells()
    results = {cell.title: _results(study, cell) for cell in cells}
    found = [result for own in results.values() for result in own]
    if not found:
        return None
    folder = study.results / "report"
    compared = compare_results(found, folder, reference=study.reference, draws=draws)
    done = [title for title, own in results.items() if own]
    text = "\n\n".join(
        [_head(study, len(done), len(cells)), *_lines(outcome), *map(markdown, compared.grids)]
    )
    with keeping(folder, "the results themselves are as they were"):
        replace_file(folder / REPORT, f"{text}\n".encode(), durable=False)
    return replace(compared, files=[folder / REPORT, *compared.files])


def _results(study: StudyFile, cell: StudyCell) -> list[Result]:
    """A cell's results of the study as it is now, under the study's names."""
    source = kept_source(study, cell.dataset)
    if source is None:
        return []
    key = extract_key(cell, source.manifest.digest)
    found = probed(cell, probe_key(cell, study.heads, key)) or []
    return [Result({**own.line, "encoder": cell.encoder.name}, own.home) for own in found]


def _head(study: StudyFile, done: int, cells: int) -> str:
    return (
        f"# {study.name}\n\n{len(study.encoders)} encoders x {len(study.datasets)} data sets x "
        f"{len(study.heads)} heads, as {Path(study.path).name} says; {done} of {cells} cells are done."
    )


def _lines(outcome: StudyOutcome) -> Sequence[str]:
    rows = [f"* {what}: {line}" for what, line in {**outcome.missing, **outcome.failed}.items()]
    return ["## Not done\n\n" + "\n".join(rows)] if rows else []
