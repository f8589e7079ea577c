"""A study to begin with: the paper's encoders, data sets and heads under any preset."""

from importlib.resources import files
from pathlib import Path

from featcache.cache.format.durable import replace_file
from featcache.errors import InputError
from featcache.heads.probing.presets import Preset, preset_named
from featcache.output import keeping, writable_file

TEMPLATE = "study.toml"


def template(preset: str) -> str:
    """The text of a study under a preset.

    Raises:
        InputError: there is no such preset.
    """
    own = preset_named(preset)
    text = (files("featcache.heads.campaign") / TEMPLATE).read_text(encoding="utf-8")
    return text.replace("@NAME@", own.name).replace("@PROTOCOL@", _protocol(own))


def write_template(path: Path, preset: str) -> None:
    """Write a study to begin with.

    Raises:
        InputError: there is something at the path already, or no such preset.
    """
    text = template(preset)
    if path.exists():
        raise InputError(f"{path} is there already; name another file, or move it away")
    writable_file(path)
    with keeping(path, "nothing was written"):
        replace_file(path, text.encode())


def _protocol(preset: Preset) -> str:
    lines = [f'preset = "{preset.name}"']
    if preset.sobol:
        trials = preset.sobol + preset.tpe
        lines.append(f"search = true  # {trials} trials a head: {preset.sobol} Sobol, {preset.tpe} TPE")
        lines.append(f"seeds = {preset.seeds}")
    else:
        lines.append(f"search = false  # {preset.name} fixes its settings")
    return "\n".join(lines)
