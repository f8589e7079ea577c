"""One page of HTML about a trained head: its prototypes, its clips, and where it found what."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from pathlib import Path
from string import Template

import numpy as np
from torch import Tensor

from featcache.arguments import check, count_up_to
from featcache.cache.format.durable import replace_file
from featcache.errors import InputError
from featcache.heads.explain.clipview import clip_view
from featcache.heads.explain.learned import Patch, prototypes_of, scores_of
from featcache.heads.explain.localise import evidence, points_into
from featcache.heads.explain.opened import Opened, open_head
from featcache.heads.explain.sections import class_section, clip_section, whole_head
from featcache.heads.prototypical import ProtoFloat
from featcache.output import keeping, writable_file

TEMPLATE = Path(__file__).parent / "page.html"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What a page shows."""

    path: Path
    num_bytes: int
    classes: int
    clips: int
    notes: list[str]


def explain(
    head: str | Path,
    *,
    out: str | Path,
    manifest: str | Path | None = None,
    cache: str | Path | None = None,
    audio_roots: Mapping[str, str] | None = None,
    column_seconds: float | None = None,
    clips: int = 8,
    classes: int = 20,
    prototypes: int = 3,
    patches: int = 3,
    most_mb: float = 40,
) -> Explained:
    """Write a page that opens from disk, without a network, and carries its pictures and sounds.

    Args:
        head: a saved head, or a folder of results: that of its last one
        manifest: of clips to show; the one that was probed unless given
        cache: where its cache lies now
        audio_roots: beginning of a path in the manifest -> what it is now
        column_seconds: [s] between token columns, where the cache does not say
        clips, classes: how many are shown, at most
        prototypes, patches: of each class, and train patches of each prototype
        most_mb: [MB] refuse to write a larger page

    Raises:
        InputError: nothing to show, a number out of range, or the page is too large.
        MismatchError: the cache is of other tokens.
    """
    check(
        {name: count_up_to(10_000) for name in ("clips", "classes", "prototypes", "patches")},
        {"clips": clips, "classes": classes, "prototypes": prototypes, "patches": patches},
    )
    writable_file(Path(out))
    opened = open_head(
        head, manifest=manifest, cache=cache, audio_roots=audio_roots, column_seconds=column_seconds
    )
    sections, first = [whole_head(opened)], dict[int, list[Patch]]()
    shown, usual = [], None
    if opened.cache is not None and opened.clips:
        train, test = opened.ids("train") or list(opened.clips), opened.ids("test") or list(opened.clips)
        chosen = list(range(len(opened.classes)))[:classes]
        if isinstance(opened.head, ProtoFloat):
            on_train, on_test = scores_of(opened, train), scores_of(opened, test)
            usual = on_train[0].mean(dim=0)
            for label in chosen:
                found = prototypes_of(
                    opened, label, (train, *on_train), (test, on_test[0]), most=prototypes, patches=patches
                )
                first[label] = found[0][0].patches if found[0] else []
                sections.append(class_section(opened, label, found))
        views = (clip_view(opened, name, usual, first) for name in _spread(opened, test, clips))
        shown = [view for view in views if view]
        if shown:
            sections.append("<h2>Clips</h2>" + _pointing(opened, test, usual))
            sections += [clip_section(opened, view) for view in shown]
    text = _page(opened, sections)
    size = len(text.encode())
    if size > most_mb * 1e6:
        raise InputError(
            f"the page would have {size / 1e6:.1f} MB, more than {most_mb:g}; show fewer clips, classes, "
            "prototypes or patches",
            options=("clips", "classes", "prototypes", "patches"),
        )
    with keeping(Path(out), "nothing was written"):
        replace_file(Path(out), text.encode(), durable=False)
    count = sum("<h2>" in section and "data-classes" in section for section in sections)
    return Explained(path=Path(out), num_bytes=size, classes=count, clips=len(shown), notes=opened.notes)


def _spread(opened: Opened, ids: Sequence[str], count: int) -> list[str]:
    """Clips of as many classes as there are, in turn."""
    by_class: dict[str, list[str]] = {}
    for name in ids:
        by_class.setdefault(";".join(opened.clips[name].labels[:1]), []).append(name)
    turns = zip_longest(*by_class.values())
    return [name for turn in turns for name in turn if name is not None][:count]


def _pointing(opened: Opened, test: Sequence[str], usual: Tensor | None) -> str:
    """How often the strongest patch of a class lies in one of its events, where these are known."""
    head, cache = opened.head, opened.cache
    if usual is None or not opened.events or not isinstance(head, ProtoFloat) or cache is None:
        return ""
    pairs = []
    for name in test:
        maps = evidence(head, cache, opened.rows[name], usual, opened.config["layer"])
        for event in opened.events.get(name, ()):
            if event.label in opened.classes:
                own = maps[opened.classes.index(event.label)]
                pairs.append(points_into(own, event.start, event.end, opened.column_seconds))
    if not pairs:
        return ""
    share, chance = np.mean(pairs, axis=0)
    return (
        f"<p>Pointing game: of {len(pairs)} events of the test clips, the patch with most evidence for the "
        f"class lies within the event in time for <b>{100 * share:.0f} %</b>; by chance {100 * chance:.0f} %."
        "</p>"
    )


def _page(opened: Opened, sections: Sequence[str]) -> str:
    config = opened.config
    value = (config.get("test") or config.get("valid") or {}).get(config.get("metric"))
    score = (
        f", test {config['metric']} {100 * value:.1f} %" if config.get("test") and value is not None else ""
    )
    title = f"{config['head']} on {config['encoder']}, {config['dataset']}"
    summary = (
        f"A head of {len(opened.classes)} classes, trained on {config['clips']['train']:,} clips "
        f"(layer {config['layer']}{score}). Everything below is in this file."
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in opened.notes)
    options = "".join(f"<option>{escape(name)}</option>" for name in opened.classes)
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        title=escape(title),
        summary=escape(summary),
        notes=notes,
        options=options,
        sections="\n".join(sections),
    )
