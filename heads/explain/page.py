"""The page: what a head has learned, to see and to hear, in one HTML file."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from featcache.cache.format.durable import replace_file
from featcache.errors import InputError
from featcache.heads.explain.sections import class_sections, clip_sections, whole_section
from featcache.heads.explain.subject import Subject
from featcache.heads.explain.view import View
from featcache.output import keeping

MARKER = "/*DATA*/null"
MOST_BYTES = 48_000_000  # browsers of phones give up at more


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What was written."""

    path: Path
    num_bytes: int
    notes: tuple[str, ...]


def explain(
    subject: Subject, out: Path, *, clips: int = 12, patches: int = 3, classes: Sequence[str] | None = None
) -> Explained:
    """Write the page of a head.

    Args:
        clips: test clips to show
        patches: train patches to show of each prototype
        classes: those to show; all of them unless given

    Raises:
        InputError: the page would be too large, or the head is of a kind that has nothing to show.
        OutputError: it cannot be written.
    """
    view = View(subject, clips=clips, patches=patches, classes=classes)
    data = {
        "title": f"What {view.name} has learned",
        "facts": view.facts(),
        "notes": list(subject.notes),
        "kind": view.kind,
        "classes": class_sections(view),
        "clips": clip_sections(view),
        "whole": whole_section(view),
    }
    content = page(data)
    if len(content) > MOST_BYTES:
        raise InputError(
            f"the page would be {len(content) / 1e6:.1f} MB, and browsers take {MOST_BYTES / 1e6:.1f}; make "
            f"it smaller with fewer clips (now {clips}), patches (now {patches}) or classes",
            options=("clips", "patches", "classes"),
        )
    with keeping(out, "nothing was written"):
        replace_file(out, content, durable=False)
    return Explained(path=out, num_bytes=len(content), notes=subject.notes)


def page(data: dict[str, Any]) -> bytes:
    """The template with its data; nothing in these can end the script that holds them."""
    template = files("featcache.heads.explain").joinpath("page.html").read_text(encoding="utf-8")
    text = json.dumps(finite(data), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return template.replace(MARKER, text, 1).encode("utf-8", "replace")


def finite(value: Any) -> Any:
    """JSON has no NaN: None is in its place. Numbers keep four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(own) for key, own in value.items()}
    return [finite(own) for own in value] if isinstance(value, list | tuple) else value
