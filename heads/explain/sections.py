"""The sections of a page as plain values: classes, clips, and the head as a whole."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nn_f

from featcache.heads.explain.events import event_scores
from featcache.heads.explain.localise import points_into
from featcache.heads.explain.prototypes import alike, best_clips, firing
from featcache.heads.explain.tokenmaps import class_weights
from featcache.heads.explain.view import View
from featcache.heads.prototypical import ProtoBin

Numbers = np.ndarray[Any, Any]
SOUNDS = 90  # patches of a page: some 3 MB
MOST_PROTOTYPES = 5  # shown of each class
MATRIX = 64  # prototypes of the matrix of cosines, those of largest weight first
ALOUD = 1.0  # [s] played of a patch
FIRES = 1.0  # standard deviations above a prototype's mean score on train clips


def class_sections(view: View) -> list[dict[str, Any]]:
    """Each class with its prototypes by weight; empty for heads without prototypes."""
    if view.kind != "prototypes":
        return []
    names, weights = view.subject.classes, class_weights(view.head)
    vectors = view.head.prototypes_for_match().detach()
    J = max(1, len(vectors) // len(names))
    count = max(1, min(MOST_PROTOTYPES, SOUNDS // max(1, view.patches * len(view.shown))))
    fires = _firing(view)
    found = []
    for number in view.shown:
        order = weights[number].argsort(descending=True)[:J].tolist()
        groups = alike(vectors, order)
        found.append({
            "name": names[number], "distinct": len(groups), "of": len(order),
            "prototypes": [_prototype(view, group, weights, number, fires) for group in groups[:count]],
        })  # fmt: skip
    return found


def _firing(view: View) -> dict[str, Any]:
    """Firing rates (2, P, C) of both splits."""
    if view.clips is None:
        return {}
    train = view.train.scores
    bars = view.usual + FIRES * train.std(dim=0)
    parts = {"train": (view.train, view.clips.train), "test": (view.test, view.clips.test)}
    return {
        name: firing(own.scores, view.clips.targets(part), bars)
        for name, (own, part) in parts.items() if len(part)
    }  # fmt: skip


def _prototype(
    view: View, group: list[int], weights: Tensor, number: int, fires: dict[str, Any]
) -> dict[str, Any]:
    own = group[0]
    rates = {name: [float(value) for value in rate[:, own, number]] for name, rate in fires.items()}
    patches = [] if view.clips is None else _patches(view, own)
    return {
        "number": own, "weight": float(weights[number, own]), "alike": len(group) - 1, "fires": rates,
        "patches": patches,
    }  # fmt: skip


def _patches(view: View, prototype: int) -> list[dict[str, Any]]:
    """The train patches that match a prototype best, no two from one recording."""
    rows = view.known.train.rows.tolist()
    recordings = [view.clip(row).group or str(view.clip(row).path) for row in rows]
    scores = view.train.scores[:, prototype]
    return [
        _patch(view, rows[number], int(view.train.index[number, prototype]), float(scores[number]))
        for number in best_clips(scores, recordings, view.patches)
    ]


def _patch(view: View, row: int, token: int, score: float) -> dict[str, Any]:
    onset, offset, low, high = view.place(token)
    start = max(0.0, (onset + offset - ALOUD) / 2)
    waveform = view.waveform(row)
    if waveform is not None:
        start = max(0.0, min(start, len(waveform) / view.known.sample_rate - ALOUD))
        end = min(start + ALOUD, len(waveform) / view.known.sample_rate)
    else:
        end = start + ALOUD
    F, _ = view.known.cache.grid
    length = max(end - start, 1e-6)
    box = [(onset - start) / length, min(1.0, (offset - start) / length), token % F / F, (token % F + 1) / F]
    clip = view.clip(row)
    return {
        "clip": clip.id, "labels": list(clip.labels), "score": score, "onset": onset, "low": low,
        "high": high, "box": box, **view.media(row, start, end),
    }  # fmt: skip


def clip_sections(view: View) -> list[dict[str, Any]]:
    """Test clips, evenly from the surest to the worst read."""
    if view.clips is None or not len(view.clips.test):
        return []
    targets = view.clips.targets(view.clips.test)
    logits = view.logits.numpy()
    own = np.flatnonzero(targets[:, view.shown].any(axis=1))
    true = np.where(targets, logits, np.inf).min(axis=1)
    margins = true - np.where(targets, -np.inf, logits).max(axis=1, initial=-1e9)
    order = own[np.argsort(-margins[own], kind="stable")]
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(view.num_clips, len(order))).astype(int))]
    return [_clip(view, int(number), logits[number], targets[number]) for number in chosen]


def _clip(
    view: View, number: int, logits: "np.ndarray[Any, Any]", true: "np.ndarray[Any, Any]"
) -> dict[str, Any]:
    row = int(view.known.test.rows[number])
    clip, maps = view.clip(row), view.maps(number)
    top = np.argsort(-logits)[: max(1, int(true.sum()))].tolist()
    wanted = list(dict.fromkeys([*top, *np.flatnonzero(true).tolist()]))
    T = view.known.cache.grid[1]
    shared = len(maps) == 1 and len(logits) > 1
    largest = float(maps[[0] if shared else wanted].max())
    events = [
        [event.start, event.end, event.label]
        for event in view.known.events.get(clip.id, ())
    ]  # fmt: skip
    media = view.media(row, colours="gray")
    waveform = view.waveform(row)
    seconds = T * view.known.column_seconds if waveform is None else len(waveform) / view.known.sample_rate
    evidence = []
    for label in [0] if shared else wanted:
        own = maps[label]
        evidence.append({
            "name": "every class" if shared else view.subject.classes[label],
            "true": bool(shared or true[label]),
            "rank": 0 if shared else int((logits > logits[label]).sum()) + 1,
            "map": view.heat(own, largest), "because": _because(view, number, None if shared else label, own),
        })  # fmt: skip
    return {
        "id": clip.id, "labels": [view.subject.classes[own] for own in np.flatnonzero(true)],
        "predicted": [view.subject.classes[own] for own in top], "seconds": seconds, "events": events,
        "width": T * view.known.column_seconds / seconds, "evidence": evidence, **media,
    }  # fmt: skip


def _because(view: View, number: int, label: int | None, own: Tensor) -> str:
    """The reason in a sentence."""
    token = int(own.transpose(0, 1).reshape(-1).argmax())  # time-major again
    onset, _, low, high = view.place(token)
    where = f"{onset:.1f} s, {low / 1000:.1f}-{high / 1000:.1f} kHz"
    if label is None:
        return f"Attention is highest on the patch at {where}."
    name = view.subject.classes[label]
    if float(own.max()) <= 0:
        return f"No patch speaks for {name}."
    if view.kind == "activation":
        return f"{name}: the patch at {where} alone would have the highest logit."
    here = view.test.index[number] == token
    added = class_weights(view.head)[label] * (view.test.scores[number] - view.usual).clamp(min=0) * here
    best = int(added.argmax())
    rows, scores = view.known.train.rows, view.train.scores[:, best]
    like = view.clip(int(rows[int(scores.argmax())])).id
    return f"{name} because the patch at {where} looks like prototype {best}, as does train clip {like}."


def whole_section(view: View) -> dict[str, Any]:
    """Numbers of the whole head."""
    found: dict[str, Any] = {}
    if view.kind == "prototypes":
        vectors, weights = view.head.prototypes_for_match().detach(), class_weights(view.head)
        order = weights.max(dim=0).values.argsort(descending=True).tolist()
        unit = nn_f.normalize(vectors, dim=-1)
        cosines = unit @ unit.T
        pairs = cosines[tuple(torch.triu_indices(len(unit), len(unit), offset=1))]
        shown = sorted(order[:MATRIX], key=lambda own: int(weights[:, own].argmax()))
        found = {
            "prototypes": len(vectors), "distinct": len(alike(vectors, order)),
            "bits": isinstance(view.head, ProtoBin),
            "cosines": torch.histc(pairs.float(), 40, -1, 1).int().tolist(), "order": shown,
            "matrix": cosines[shown][:, shown].tolist(), "weights": weights[:, shown].tolist(),
            "classes": view.subject.classes,
        }  # fmt: skip
    if view.clips is not None and view.clips.events and view.kind != "attention":
        found["pointing"] = _pointing(view)
        if view.kind == "prototypes":
            found["events"] = event_scores(view.head, view.clips, view.subject.classes)
    return found


def _pointing(view: View) -> list[float] | None:
    """The pointing game over all events of test clips: share of hits, share by chance, events."""
    pairs = []
    for number, row in enumerate(view.known.test.rows.tolist()):
        events = [
            own for own in view.known.events.get(view.clip(row).id, ()) if own.label in view.subject.classes
        ]
        maps = view.maps(number) if events else None
        for own in events:
            assert maps is not None  # there are events
            label = maps[view.subject.classes.index(own.label)]
            pairs.append(points_into(label, own.start, own.end, view.known.column_seconds))
    if not pairs:
        return None
    share, chance = np.mean(pairs, axis=0)
    return [float(share), float(chance), len(pairs)]
