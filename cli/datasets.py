"""``featcache datasets``: the table of data sets, or one of them in full."""

import json
from typing import TYPE_CHECKING, Any

import click

from featcache.cli.options import AS_JSON

if TYPE_CHECKING:
    from featcache.datasets.spec import DatasetSpec


@click.command()
@click.argument("name", required=False)
@AS_JSON
def datasets(name: str | None, as_json: bool) -> None:
    """List the data sets, or show one with its licence, where to get it and what to cite.

    \b
    featcache datasets
    featcache datasets fsd50k
    featcache datasets --json
    """
    from featcache.datasets.table import DATASETS, dataset_spec

    if name:
        found = facts(dataset_spec(name))
        lines = [f"{key:<10} {value}" for key, value in {**found, "sizes": _sizes(found["sizes"])}.items()]
        click.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines))
    elif as_json:
        click.echo(json.dumps([facts(spec) for spec in DATASETS.values()], indent=2))
    else:
        width = max(map(len, DATASETS))
        for spec in DATASETS.values():
            sizes = _sizes(spec.sizes)
            click.echo(
                f"{spec.name:<{width}}  {spec.classes:>3} classes  {spec.metric.split(',')[0]:<18}  {sizes}"
            )


def facts(spec: "DatasetSpec") -> dict[str, Any]:
    """What is known of a data set, as text and numbers."""
    found = {key: value for key, value in vars(spec).items() if key not in ("read", "hub")}
    return {**found, "sizes": dict(spec.sizes), "hub": "parquet" if spec.hub else "no"}


def _sizes(sizes: Any) -> str:
    return ", ".join(f"{split} {number:,}" for split, number in sizes.items())
