"""What ``featcache extract`` says: its plan, what it did, and where the time went."""

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from featcache.cli.advice import advice

if TYPE_CHECKING:
    from featcache.extraction.plan import Plan
    from featcache.extraction.result import Extraction
    from featcache.extraction.stages import Stages

SHOWN_FAILURES = 3


def finish(done: "Extraction", as_json: bool, profiled: bool, skip_failed: bool) -> None:
    """Say what was done, and leave with 2 where clips failed.

    Of torchrun's processes only one that sees all done does so: torchrun ends the others at such a code.
    """
    _report_json(done) if as_json else _report(done, profiled)
    if done.failed and not skip_failed and (done.complete or "TORCHELASTIC_RUN_ID" not in os.environ):
        raise click.exceptions.Exit(2)


def announce(plan: "Plan", err: bool) -> None:
    from featcache.cli.plan import line

    click.echo(line(plan), err=err)


def report_plan(done: "Extraction", as_json: bool) -> None:
    from featcache.cli.plan import lines

    assert done.plan is not None  # it was asked for
    click.echo(json.dumps(asdict(done.plan)) if as_json else "\n".join(lines(done.plan)))


def _report(done: "Extraction", profiled: bool) -> None:
    rate = done.encoded / done.seconds if done.seconds else 0.0
    parts = [f"{done.encoded} encoded"]
    parts += [f"{done.present} already there ({done.canaries} checked again)"] if done.present else []
    parts += [f"{done.reused} copied"] if done.reused else []
    parts += [f"{len(done.failed)} failed"] if done.failed else []
    place = done.address or done.cache
    click.echo(
        f"{place}: {done.clips} clips ({', '.join(parts)}), {done.num_bytes / 1e6:.1f} MB, "
        f"{done.seconds:.1f} s, {rate:.1f} clips/s"
    )
    if done.cut:
        click.echo(
            f"{done.cut} clips are longer than the encoder takes, by {done.cut_median:.2f} s "
            f"(median; at most {done.cut_largest:.2f} s): only their beginning was encoded "
            "(--window splits them, --clip-seconds changes the length)"
        )
    if done.lost:
        shards = ", ".join(map(str, done.lost))
        click.echo(
            f"another writer finished shard{'s' if len(done.lost) > 1 else ''} {shards} meanwhile: its "
            "tokens stay, and those made here were dropped; do two writers have the same number?",
            err=True,
        )
    if not done.complete:
        click.echo(f"writer {done.writer} is done; other writers' shards are not finished yet")
    if done.failed:
        _report_failed(done)
    if done.complete and (done.encoded or done.present or done.reused):
        click.echo(f"next: featcache probe {place} --head linear --head attentive --head protobin")
    if done.stages:
        _report_stages(done.stages, profiled)


def _report_failed(done: "Extraction") -> None:
    if not done.complete:
        click.echo(f"{len(done.failed)} clips failed so far; the last writer lists them", err=True)
        return
    for name, reason in list(done.failed.items())[:SHOWN_FAILURES]:
        click.echo(f"failed: {name}: {reason}", err=True)
    place = done.address or done.cache
    click.echo(f"all {len(done.failed)} failed clips are listed in {place}/failed.jsonl", err=True)


def _report_stages(stages: "Stages", profiled: bool) -> None:
    from featcache.cli.plan import WORKERS

    for name, busy, waiting, what in stages.table() if profiled else ():
        work = f"{busy:8.2f} s at work," if name else " " * 19
        click.echo(f"{name:<8}{work} {waiting:8.2f} s waiting {what}")
    share = stages.main[stages.bound] / stages.wall
    click.echo(f"bounded by {WORKERS[stages.bound]} ({share:.0%} of the time); would help: {advice(stages)}")


def _report_json(done: "Extraction") -> None:
    click.echo(json.dumps(asdict(done), default=str))
