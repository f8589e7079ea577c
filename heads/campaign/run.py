"""The cells of a study, one after another: extract what is missing, probe, write down what is done."""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from featcache.cache.format.durable import replace_file
from featcache.cache.read.join import Say
from featcache.encoders import encoder_spec
from featcache.errors import FeatcacheError, Interrupted, MissingError
from featcache.extraction.extract import extract
from featcache.heads.campaign.plan import StudyPlan, plan_study, weights_line
from featcache.heads.campaign.steps import (
    add_step,
    extract_key,
    extracted,
    probe_key,
    probed,
    weights_state,
)
from featcache.heads.campaign.study import StudyCell, StudyEncoder, StudyFile
from featcache.heads.probing.probe import probe
from featcache.heads.training.run import Watch
from featcache.manifest import Manifest, load_manifest
from featcache.output import keeping, writable
from featcache.weights.download import locate

TRACE = "traceback.txt"


@dataclass
class StudyOutcome:
    """What a run of a study did."""

    plan: StudyPlan  # before it
    done: list[StudyCell] = field(default_factory=list)  # finished now or earlier
    missing: dict[str, str] = field(default_factory=dict)  # what -> the line that gets it
    failed: dict[str, str] = field(default_factory=dict)  # cell -> why

    @property
    def whole(self) -> bool:
        return len(self.done) == len(self.plan.cells)


def run_study(
    study: StudyFile,
    cells: Sequence[StudyCell],
    *,
    say: Say,
    progress: bool = False,
    watch: Watch | None = None,
) -> StudyOutcome:
    """Bring cells to their results. What is done is not done again; what fails leaves the rest alone.

    Raises:
        InputError: the folder of caches or of results cannot be written.
        Interrupted: Ctrl-C; what is finished is kept.
    """
    writable(study.caches)
    plan = plan_study(study, cells, progress=progress)
    outcome = StudyOutcome(plan, missing=dict(plan.missing))
    for number, planned in enumerate(plan.cells, start=1):
        cell = planned.cell
        if planned.state == "done":
            outcome.done.append(cell)
        elif planned.state != "missing" and f"encoder {cell.encoder.name}" not in outcome.missing:
            say(f"[{number}/{len(plan.cells)}] {cell.title}: {planned.clips:,} clips, {planned.state}")
            manifest = plan.sources[cell.dataset.name].manifest
            _try(study, cell, manifest, outcome, say, progress, watch)
    return outcome


def _try(
    study: StudyFile,
    cell: StudyCell,
    manifest: Manifest,
    outcome: StudyOutcome,
    say: Say,
    progress: bool,
    watch: Watch | None,
) -> None:
    try:
        _run(study, cell, manifest, say, progress, watch)
        outcome.done.append(cell)
    except (Interrupted, KeyboardInterrupt):
        raise
    except _NoWeights as error:
        outcome.missing[f"encoder {cell.encoder.name}"] = f"{error}, as {weights_line(cell.encoder)}"
        say(f"{cell.title}: {error}")
    except FeatcacheError as error:
        outcome.failed[cell.title] = str(error)
        say(f"{cell.title} failed: {error}")
    except Exception as error:  # memory of a GPU, or a bug: a night's other cells need not end with it
        with keeping(cell.results):
            replace_file(cell.results / TRACE, traceback.format_exc().encode(), durable=False)
        line = str(error).splitlines()[0] if str(error) else ""
        outcome.failed[cell.title] = f"{type(error).__name__}: {line} (see {cell.results / TRACE})"
        say(f"{cell.title} failed: {outcome.failed[cell.title]}")


def _run(
    study: StudyFile, cell: StudyCell, manifest: Manifest, say: Say, progress: bool, watch: Watch | None
) -> None:
    with keeping(cell.results):
        cell.results.mkdir(parents=True, exist_ok=True)
        cell.cache.parent.mkdir(parents=True, exist_ok=True)
    key = extract_key(cell, manifest.digest)
    if extracted(cell, key) is None:
        _extract(cell, manifest, key, progress)
    own_key = probe_key(cell, study.heads, key)
    if probed(cell, own_key) is None:
        results = probe(
            cell.cache, _asked(cell, manifest, key), heads=study.heads, out=cell.results, say=say,
            watch=watch, progress=progress, **cell.probe,
        )  # fmt: skip
        seconds = sum(result["seconds"] for result in results)
        add_step(cell, "probe", own_key, {"runs": [own["run"] for own in results], "seconds": seconds})


class _NoWeights(MissingError):
    """Weights that are to be fetched, and cannot be."""


def _extract(cell: StudyCell, manifest: Manifest, key: str, progress: bool) -> None:
    _fetch_weights(cell.encoder)
    done = extract(
        manifest, out=cell.cache, encoder=cell.encoder.encoder, weights=cell.encoder.weights,
        encoder_options=cell.encoder.options, progress=progress, **cell.extract,
    )  # fmt: skip
    if done.failed and not cell.extract.get("skip_failed"):
        name, why = next(iter(done.failed.items()))
        raise FeatcacheError(
            f"{len(done.failed)} clips could not be decoded, first {name}: {why}; mend them, or go on "
            "without them with skip_failed = true under [extract]"
        )
    facts = {
        "manifest": str(done.manifest), "clips": done.clips, "encoded": done.encoded,
        "failed": len(done.failed), "bytes": done.num_bytes, "seconds": done.seconds,
        "weights": weights_state(cell),
    }  # fmt: skip
    add_step(cell, "extract", key, facts)


def _fetch_weights(encoder: StudyEncoder) -> None:
    if encoder.encoder.startswith(("hf:", "timm:")):
        return
    weights = encoder.weights or encoder_spec(encoder.encoder).weights
    try:
        if weights:
            locate(weights)
    except MissingError as error:
        raise _NoWeights(str(error)) from None


def _asked(cell: StudyCell, manifest: Manifest, key: str) -> Manifest:
    """What is probed: the manifest that extraction made of the data set's, under the data set's name."""
    step = extracted(cell, key)
    path = Path(step["manifest"]) if step else manifest.path
    return replace(load_manifest(path), path=manifest.path)
