"""``featcache heads``: the table of heads, or one of them in full."""

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from featcache.heads.base import HeadSpec

READS = {
    "cls": "cls, else the mean token",
    "mean": "the mean token",
    "tokens": "all tokens",
    "tokens+cls": "all tokens and cls",
    "layers": "all tokens of all kept layers",
}


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")
def heads(name: str | None, as_json: bool) -> None:
    """List the heads, or show one with its formula and source.

    \b
    featcache heads
    featcache heads protobin
    featcache heads --json
    """
    from featcache.heads import HEADS, head_spec

    specs = [head_spec(name)] if name else list(HEADS.values())
    if as_json:
        rows = [_facts(spec) for spec in specs]
        click.echo(json.dumps(rows[0] if name else rows, indent=2))
    elif name:
        click.echo("\n".join(f"{key:<12} {value}" for key, value in _facts(specs[0]).items()))
    else:
        width = max(len(spec.name) for spec in specs)
        click.echo("\n".join(f"{spec.name:<{width}}  {spec.family:<11}  {spec.summary}" for spec in specs))


def _facts(spec: "HeadSpec") -> dict[str, Any]:
    facts = {key: value for key, value in vars(spec).items() if key != "build"}
    return {**facts, "reads": READS[spec.reads]}
