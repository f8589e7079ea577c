"""``featcache encoders``: the table of encoders, or one of them in full."""

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from featcache.encoders import EncoderSpec


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")
def encoders(name: str | None, as_json: bool) -> None:
    """List the encoders, or show one with its licence and paper.

    NAME is one of the table, timm:MODEL, or path/to/file.py:Class.

    \b
    featcache encoders
    featcache encoders beats
    featcache encoders --json
    """
    from featcache.encoders import encoder_names, encoder_spec

    specs = [encoder_spec(each) for each in ([name] if name else encoder_names())]
    if as_json:
        rows = [_facts(spec) for spec in specs]
        click.echo(json.dumps(rows[0] if name else rows, indent=2))
    elif name:
        click.echo(_one(specs[0]))
    else:
        click.echo(_table(specs))


def _facts(spec: "EncoderSpec") -> dict[str, Any]:
    facts = {key: value for key, value in vars(spec).items() if key != "build"}
    return {**facts, "num_tokens": spec.grid[0] * spec.grid[1]}


def _one(spec: "EncoderSpec") -> str:
    weights = spec.weights or ("give --weights PATH" if spec.needs_weights else "none needed")
    if spec.name.startswith("timm:"):
        weights = "timm's own, fetched from the Hugging Face Hub; or give --weights PATH"
    lines = {
        "encoder": spec.name,
        "sample rate": f"{spec.sample_rate} Hz",
        "clip": f"{spec.clip_seconds:g} s (other lengths with --clip-seconds)",
        "frontend": spec.frontend,
        "padding": spec.padding,
        "tokens": f"{_grid(spec)} = {spec.grid[0] * spec.grid[1]} x {spec.dim}, time-major: {spec.tokens}",
        "disk": f"{_disk(spec)} a clip, one layer",
        "layers": f"{spec.depth}" if spec.depth else "layer 0 only",
        "cls": "yes" if spec.has_cls else "no",
        "clip vector": f"{spec.clip_vector} (the authors')",
        "weights": weights,
        "licence": spec.licence,
        "paper": spec.source,
        "checked": spec.checked,
    }
    return "\n".join(f"{key:<12} {value}" for key, value in lines.items())


def _table(specs: list["EncoderSpec"]) -> str:
    rows = [("encoder", "Hz", "clip s", "F x T", "dim", "layers", "cls", "weights", "licence")]
    for spec in specs:
        weights = "public" if spec.weights else ("give a path" if spec.needs_weights else "none")
        size = (f"{spec.clip_seconds:g}", _grid(spec), str(spec.dim), str(spec.depth))
        cls = "yes" if spec.has_cls else "no"
        rows.append((spec.name, str(spec.sample_rate), *size, cls, weights, _shorten(spec.licence)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _disk(spec: "EncoderSpec") -> str:
    """What the tokens of a full clip take in each storage dtype, with their scales."""
    from featcache.cache.format.dtypes import STORE_DTYPES

    tokens = spec.grid[0] * spec.grid[1]
    sizes = {
        name: tokens * (spec.dim * STORE_DTYPES[name].bits // 8 + 4 * STORE_DTYPES[name].scaled)
        for name in ("float16", "int8", "int4")
    }
    return ", ".join(f"{name} {size / 1e3:,.0f} kB" for name, size in sizes.items())


def _grid(spec: "EncoderSpec") -> str:
    return f"{spec.grid[0]} x {spec.grid[1]}"


def _shorten(words: str, width: int = 44) -> str:
    return words if len(words) <= width else words[: width - 1].rstrip() + "…"
