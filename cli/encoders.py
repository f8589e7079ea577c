"""``featcache encoders``: the table of encoders, one of them in full, or one of them on a file."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featcache.cli.options import AS_JSON, PATH, encoder_options

if TYPE_CHECKING:
    from featcache.encoders import EncoderSpec
    from featcache.encoders.tried import LayerFacts, Tried


@click.command()
@click.argument("name", required=False)
@click.option(
    "--try",
    "sound",
    type=PATH,
    help="Run NAME on this file: do its weights work? Classes, if fine-tuned, and token statistics.",
)
@click.option("--weights", help="With --try: a path, hf-hub:OWNER/NAME, or a URL.")
@click.option("--clip-seconds", type=float, help="With --try: clip length [s]; its authors' by default.")
@encoder_options
@AS_JSON
def encoders(
    name: str | None,
    sound: Path | None,
    weights: str | None,
    clip_seconds: float | None,
    encoder_options: dict[str, str],
    as_json: bool,
) -> None:
    """List the encoders, show one with its licence, paper and checkpoints, or try one on a file.

    NAME is one of the table, hf:OWNER/NAME, timm:MODEL, or path/to/file.py:Class.

    \b
    featcache encoders
    featcache encoders beats
    featcache encoders --json
    featcache encoders eat --weights finetuned.pt --try dog.wav
    """  # fmt: skip
    from featcache.encoders import build_encoder, encoder_names, encoder_spec

    if sound is not None:
        if name is None:
            raise click.UsageError("--try needs the NAME of an encoder: featcache encoders eat --try dog.wav")
        from featcache.encoders.tried import try_encoder

        tried = try_encoder(build_encoder(name, weights, clip_seconds, encoder_options), sound)
        click.echo(json.dumps(asdict(tried)) if as_json else _tried(tried))
        return
    if weights or clip_seconds or encoder_options:
        raise click.UsageError("--weights, --clip-seconds and --encoder-option go with --try FILE")
    specs = [encoder_spec(each) for each in ([name] if name else encoder_names())]
    if as_json:
        rows = [_facts(spec) for spec in specs]
        click.echo(json.dumps(rows[0] if name else rows, indent=2))
    elif name:
        click.echo(_one(specs[0]))
    else:
        click.echo(_table(specs))


def _facts(spec: "EncoderSpec") -> dict[str, Any]:
    from featcache.encoders.options import option_names
    from featcache.weights.known import known_checkpoints

    facts = {key: value for key, value in vars(spec).items() if key != "build"}
    checkpoints = [asdict(each) for each in known_checkpoints(spec.name)]
    options = option_names(spec.build)
    return {
        **facts,
        "num_tokens": spec.grid[0] * spec.grid[1],
        "options": options,
        "checkpoints": checkpoints,
    }


def _one(spec: "EncoderSpec") -> str:
    from featcache.encoders.options import option_names
    from featcache.weights.known import known_checkpoints

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
        "options": ", ".join(option_names(spec.build)) or "none",
        "checked": spec.checked,
    }
    published = [
        f"{'checkpoint':<12} {each.name}: {each.trained}, {each.licence}; "
        + (f"--weights {each.address}" if each.loads else f"from {each.address}")
        for each in known_checkpoints(spec.name)
    ]
    return "\n".join([*(f"{key:<12} {value}" for key, value in lines.items()), *published])


def _tried(tried: "Tried") -> str:
    rows, columns = tried.grid
    size = f"{rows} x {columns} = {rows * columns}"
    lines = [
        f"{tried.path}: {tried.clip_seconds:.2f} s, encoded in {tried.encode_seconds:.2f} s",
        f"tokens       {tried.valid} of {size} stand for audio, {tried.dim} wide",
        f"weights      {tried.weights}",
        *(f"class        {probability:6.1%}  {label}" for label, probability in tried.classes),
        "",
        f"{'layer':>5} {'mean':>9} {'sd':>9} {'largest':>9}  outlier channels (times the median channel)",
    ]
    return "\n".join([*lines, *(_layer(each) for each in tried.layers)])


def _layer(facts: "LayerFacts") -> str:
    outliers = ", ".join(f"{channel} ({ratio:.0f}x)" for channel, ratio in facts.outliers.items()) or "none"
    return f"{facts.layer:>5} {facts.mean:>9.3f} {facts.sd:>9.3f} {facts.largest:>9.2f}  {outliers}"


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
