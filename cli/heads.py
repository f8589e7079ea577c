"""``featcache heads``: the table of heads, or one of them in full."""

import json
from typing import TYPE_CHECKING, Any

import click

from featcache.cli.options import AS_JSON

if TYPE_CHECKING:
    from featcache.heads.base import HeadSpec
    from featcache.heads.solved.registry import SolvedSpec

READS = {
    "cls": "cls, else the mean token",
    "mean": "the mean token",
    "tokens": "all tokens",
    "tokens+cls": "all tokens and cls",
    "layers": "all tokens of all kept layers",
}


@click.command()
@click.argument("name", required=False)
@AS_JSON
def heads(name: str | None, as_json: bool) -> None:
    """List the heads, or show one with its options, formula and source.

    NAME is one of the list, or path/to/file.py:Class.

    \b
    featcache heads
    featcache heads protobin
    featcache heads my_head.py:MyHead
    featcache heads logreg
    featcache heads --json
    """
    from featcache.heads.registry import head_names, head_spec
    from featcache.heads.solved.registry import SOLVED

    if name in SOLVED:
        found = _solved_facts(SOLVED[name])
        lines = [f"{key:<12} {value}" for key, value in found.items()]
        click.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines))
        return
    specs = [head_spec(each) for each in ([name] if name else head_names())]
    if as_json:
        rows = [_facts(spec) for spec in specs]
        listed = rows[0] if name else [*rows, *map(_solved_facts, SOLVED.values())]
        click.echo(json.dumps(listed, indent=2, default=str))
    elif name:
        click.echo(_one(specs[0]))
    else:
        width = max(map(len, [*(spec.name for spec in specs), *SOLVED]))
        for spec in specs:
            click.echo(f"{spec.name:<{width}}  {spec.family:<11}  {spec.summary}")
        click.echo("\nsolved, not trained (references; features are an option):")
        for own in SOLVED.values():
            click.echo(f"{own.name:<{width}}  {'solved':<11}  {own.summary}")


def _facts(spec: "HeadSpec") -> dict[str, Any]:
    from featcache.heads.options import describe_options

    facts = {key: value for key, value in vars(spec).items() if key not in ("build", "code")}
    defaults = {name: default for name, default, _ in describe_options(spec)}
    return {**facts, "reads": READS[spec.reads], "options": defaults}


def _one(spec: "HeadSpec") -> str:
    """A head in lines; its options as they are written behind its name, one a line."""
    from featcache.heads.options import describe_options

    facts = {key: value for key, value in _facts(spec).items() if key != "options"}
    lines = [f"{key:<12} {value}" for key, value in facts.items()]
    options = [(f"{name}={written(default)}", wanted) for name, default, wanted in describe_options(spec)]
    width = max((len(option) for option, _ in options), default=0)
    for number, (option, wanted) in enumerate(options or [("none", "")]):
        lines.append(f"{'' if number else 'options':<12} {option:<{width}}  {wanted}".rstrip())
    return "\n".join(lines)


def written(value: Any) -> str:
    """A default as it would be written behind a head's name."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _solved_facts(spec: "SolvedSpec") -> dict[str, Any]:
    from featcache.heads.solved.features import FEATURES

    chosen = (
        f"{spec.knob} of {', '.join(f'{value:g}' for value in spec.strengths)}" if spec.knob else "nothing"
    )
    return {
        "name": spec.name, "family": "solved", "summary": spec.summary, "formula": spec.formula,
        "chosen": chosen, "features": ", ".join(FEATURES), "source": spec.source,
    }  # fmt: skip
