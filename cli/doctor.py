"""``featcache doctor``: what this machine has, and how fast it is, on one screen."""

import json
from pathlib import Path
from typing import Any

import click

from featcache.cli.options import AS_JSON
from featcache.units import bytes_text


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
@AS_JSON
def doctor(folder: Path, as_json: bool) -> None:
    """Say what this machine has and how fast it is.

    FOLDER is where caches are to lie (here unless given): 64 MB are written there, read and removed.

    \b
    featcache doctor
    featcache doctor /data/caches
    featcache doctor --json
    """
    from featcache.machine.facts import machine_facts

    facts = {**machine_facts(folder), "match": _match()}
    click.echo(json.dumps(facts) if as_json else "\n".join(_screen(facts)))


def _match() -> dict[str, Any]:
    """Which form of the prototype match runs on this CPU, and what compiles it."""
    from featcache.compiled import compiler
    from featcache.heads.matching import native

    compiled = native.library() is not None
    return {"compiled": compiled, "compiler": compiler(), "needs": native.NEEDS}


def _screen(facts: dict[str, Any]) -> list[str]:
    devices, disk, memory, limits = facts["devices"], facts["disk"], facts["memory"], facts["limits"]
    versions = {name: value for name, value in facts["versions"].items() if name != "system"}
    here = [f"{name} {value}" for name, value in versions.items() if value]
    absent = [name for name, value in versions.items() if not value]
    rows = [
        ("versions", ", ".join(here[:5])),
        ("", ", ".join(here[5:])),
        ("not installed", ", ".join(absent) or "nothing"),
        ("system", facts["versions"]["system"]),
        ("cpu", f"{devices['cpu']}, {devices['cores']} cores, torch takes {devices['threads']} threads"),
        ("instructions", _instructions(facts["instructions"])),
        *(("gpu", _gpu(gpu)) for gpu in devices["cuda"]),
        *([] if devices["cuda"] else [("gpu", "Apple's (mps)" if devices["mps"] else "none")]),
        ("match", _compiled(facts["match"])),
        ("memory", f"{bytes_text(memory['free'])} free, copies {bytes_text(memory['copy_rate'])}/s"),
        ("disk", f"{disk['folder']}: {disk['kind']} ({'network' if disk['network'] else 'local'}), "
                 f"{bytes_text(disk['free'])} free"),
        ("", f"writes {bytes_text(disk['write_rate'])}/s, reads {bytes_text(disk['read_rate'])}/s "
             "(one file of 64 MB)"),
        ("ulimit", ", ".join(f"{name.replace('_', ' ')} {'unlimited' if value is None else f'{value:,}'}"
                             for name, value in limits.items())),
        ("hugging face", f"{'a token' if facts['hub']['token'] else 'no token'}"
                         f"{', offline' if facts['hub']['offline'] else ''}, {facts['hub']['folder']}"),
        ("weights here", ", ".join(facts["weights"]) or "none of those with an address; "
                                                        "'featcache encoders NAME' lists them"),
    ]  # fmt: skip
    return [f"{name:<14}{text}" for name, text in rows]


def _instructions(facts: dict[str, Any]) -> str:
    return f"{', '.join(facts['found']) or 'none known'} (torch uses {facts['torch']})"


def _gpu(facts: dict[str, Any]) -> str:
    lacking = "" if facts["bfloat16"] else ", no bfloat16"
    return f"{facts['name']}, {bytes_text(facts['free'])} of {bytes_text(facts['bytes'])} free{lacking}"


def _compiled(facts: dict[str, Any]) -> str:
    if facts["compiled"]:
        return f"compiled by {facts['compiler']}"
    return f"not compiled, torch operations instead: that needs {facts['needs']}"
