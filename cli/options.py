"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")


class Place(click.ParamType[str | Path]):
    """A path, or an address such as ``s3://bucket/name``, which a path would mangle."""

    name = "path or url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | Path:
        return value if "://" in str(value) or str(value).startswith("hf-hub:") else Path(value)


class Gpus(click.ParamType[str]):
    """A number of GPUs, from 1, or all."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value != "all" and not (str(value).isdecimal() and int(value) > 0):
            self.fail(f"{value!r} is neither a number of GPUs nor all", param, ctx)
        return str(value)


_HELP = (
    "What this encoder takes beyond weights and length ('featcache encoders NAME' lists it); repeatable. "
    "trust_remote_code=true of hf: models runs Python code from their repository with all your rights."
)


def _pairs(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """``("num_heads=4",)`` as ``{"num_heads": "4"}``."""
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", ctx, parameter)
        pairs[name] = value
    return pairs


def slurm_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--slurm NAME=VALUE``, repeatable, as a dictionary of text."""
    option = click.option(
        "--slurm",
        "slurm_options",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_pairs,
        help="With --launcher: of submitit's executor, as timeout_min=720, slurm_account=me; repeatable.",
    )
    return option(command)


def encoder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--encoder-option NAME=VALUE``, repeatable, as a dictionary of text."""
    option = click.option(
        "--encoder-option",
        "encoder_options",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_pairs,
        help=_HELP,
    )
    return option(command)
