"""The parts of a page: the whole head, each class, each clip, as HTML."""

from collections.abc import Sequence
from html import escape

import numpy as np
from torch.nn import functional as nn_f

from featcache.heads.explain.clipview import ClipView
from featcache.heads.explain.learned import ALIKE, Patch, Prototype, distinct
from featcache.heads.explain.media import band_of, heard, overlay, picture, sound, spectrogram
from featcache.heads.explain.opened import Opened
from featcache.heads.prototypical import ProtoBin, ProtoFloat

AROUND = 0.5  # [s] shown and played on each side of a patch
LONGEST = 30.0  # [s] of a clip's sound in a page
MOST = 400  # prototypes in the matrices of a page: a pixel each


def whole_head(opened: Opened) -> str:
    """How alike the prototypes are, and which class reads which."""
    head = opened.head
    if not isinstance(head, ProtoFloat):
        return ""
    used = head.prototypes_for_match().detach()
    unit = nn_f.normalize(used, dim=-1)
    cosines = (unit @ unit.T).numpy()
    pairs = cosines[np.triu_indices(len(cosines), 1)]
    weights = head.classify.weight.detach().numpy()
    count = len(distinct(used, range(len(used))))
    edges = np.linspace(-1, 1, 21)
    shares = np.histogram(pairs, edges)[0] / max(len(pairs), 1)
    rows = "".join(
        f"<tr><td>{low:.1f} to {high:.1f}</td><td>{100 * share:.1f} %</td></tr>"
        for low, high, share in zip(edges, edges[1:], shares, strict=False)
        if share >= 0.0005
    )
    large = float(np.abs(weights).max()) or 1.0
    latent = ""
    if isinstance(head, ProtoBin):
        latent = (
            "<p>Their values are −1 or +1: a saved head keeps one bit of each; the latent floats behind them "
            "are gone.</p>"
        )
    alike = picture(cosines[:MOST, :MOST], colors="RdBu", low=-1, high=1)
    read = picture(weights[:MOST, :MOST], colors="RdBu", low=-large, high=large)
    return f"""<section><h2>The whole head</h2>
<p>{len(used)} prototypes of {used.shape[1]} values, {count} distinct (cosine below {ALIKE}).</p>{latent}
<div class="cards">
{_square(alike, "Cosine of each prototype with each other: blue alike, red opposite")}
{_square(read, f"Weights to {large:.2f}: a row a class, the first at the bottom; blue for, red against")}
</div>
<details><summary>Distribution of the cosines of pairs</summary>
<table><tr><th>cosine</th><th>pairs</th></tr>{rows}</table></details>
</section>"""


def class_section(opened: Opened, label: int, found: tuple[Sequence[Prototype], int]) -> str:
    """The prototypes of a class with their train patches."""
    name, (prototypes, count) = opened.classes[label], found
    parts = [
        f'<section data-classes="{escape(name)}"><h2>{escape(name)}</h2>',
        f"<p>{count} distinct prototypes speak for it; those with most weight:</p>",
    ]
    for own in prototypes:
        fires = own.fires
        alike = f", {len(own.alike)} near-duplicates shown with it" if own.alike else ""
        parts.append(
            f"<h3>Prototype {own.number}</h3><p class='muted'>weight {own.weight:.2f}{alike}; fires on "
            f"{_percent(fires['train own'])} of the class's train clips and {_percent(fires['train other'])} "
            f"of others, {_percent(fires['test own'])} and {_percent(fires['test other'])} of test clips</p>"
            "<div class='cards'>"
        )
        parts += [_patch(opened, patch) for patch in own.patches]
        parts.append("</div>")
    return "\n".join([*parts, "</section>"])


def _patch(opened: Opened, patch: Patch) -> str:
    clip, step = opened.clips[patch.clip], opened.column_seconds
    assert opened.cache is not None
    F, T = opened.cache.grid
    begin, end = patch.column * step, (patch.column + 1) * step
    band = band_of(patch.row, F)
    where = f"{begin:.2f} s" + (f", {band[0]:.0f} to {band[1]:.0f} Hz" if F > 1 else "")
    caption = f"<figcaption>{escape(patch.clip)} at {where}; cosine {patch.score:.2f}</figcaption>"
    own = heard(clip, T * step + 1)
    if own is None:
        return f"<figure class='card'>{caption}<span class='muted'>its audio is not here</span></figure>"
    first, last = max(0.0, begin - AROUND), min(len(own[0]) / 16_000, end + AROUND)
    left, width = (100 * part / max(last - first, 1e-6) for part in (begin - first, end - begin))
    image = spectrogram(own[1], first, last)
    samples = own[0][round(first * 16_000) : round(last * 16_000)]
    name = escape(f"spectrogram of {patch.clip} around {where}, the patch marked")
    place = f"left:{left:.1f}%;width:{width:.1f}%;bottom:{100 * patch.row / F:.1f}%;height:{100 / F:.1f}%"
    label = escape(f"{patch.clip} around {where}")
    return f"""<figure class="card"><span class="map crop"><img alt="{name}" src="{image}">
<span class="box" style="{place}"></span></span>
<audio controls preload="none" src="{sound(samples)}" aria-label="{label}"></audio>{caption}</figure>"""


def clip_section(opened: Opened, view: ClipView) -> str:
    """One clip: what was heard in it, where, and like what."""
    seconds = view.maps.shape[-1] * opened.column_seconds
    own = heard(opened.clips[view.clip], seconds)
    shown, title = escape(chr(31).join(view.names)), escape(view.clip)
    parts = [f'<section data-classes="{shown}"><h3>{title}</h3><p>{view.said}</p>']
    length = len(own[0]) / 16_000 if own else seconds
    if own is not None:
        samples = own[0][: round(LONGEST * 16_000)]
        parts.append(f'<audio controls preload="none" src="{sound(samples)}" aria-label="{title}"></audio>')
    behind = spectrogram(own[1], 0, length, "gray") if own is not None else None
    width = 100 * min(1.0, seconds / length)
    for name, text, values in zip(view.names, view.texts, view.maps, strict=True):
        under = f'<img alt="" src="{behind}">' if behind else ""
        alt = escape(f"{view.kind} for {name} over time and frequency in {view.clip}")
        over = f'<img class="over" alt="{alt}" style="width:{width:.1f}%" src="{overlay(values)}">'
        parts.append(
            f'<figure><span class="map wide">{under}{over}{_events(opened, view.clip, name, length)}</span>'
            f"<figcaption>{escape(text)}</figcaption></figure>"
        )
    return "\n".join([*parts, "</section>"])


def _events(opened: Opened, clip: str, name: str, length: float) -> str:
    """The true events of a class as dashed boxes."""
    marks = []
    for event in opened.events.get(clip, ()):
        if event.label == name:
            left, width = (100 * part / length for part in (event.start, event.end - event.start))
            marks.append(f'<span class="event" style="left:{left:.1f}%;width:{width:.1f}%"></span>')
    return "".join(marks)


def _square(source: str, caption: str) -> str:
    text = escape(caption)
    return f'<figure class="square"><img alt="{text}" src="{source}"><figcaption>{text}</figcaption></figure>'


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.0f} %"  # NaN: there is no such clip
