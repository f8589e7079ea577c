"""When a head says that a class sounds, held against events that are known: frames, and whole events."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from featcache.heads.data.tasks import Part
from featcache.heads.explain.prototypes import BLOCK
from featcache.heads.explain.subject import Clips
from featcache.heads.explain.tokenmaps import as_grid
from featcache.heads.framewise import Framewise
from featcache.heads.predicting.decide import best_thresholds
from featcache.heads.report.metrics import average_precision
from featcache.manifest.events import Event

COLLAR = 0.2  # [s] by which an onset may be off, and an offset
SHARE = 0.2  # of an event's length by which its offset may be off, where that is more
Span = tuple[float, float]  # onset and offset [s]


def hits(true: Sequence[Span], found: Sequence[Span]) -> int:
    """How many events of one class in one clip are found, each by another: the most that can be paired.

    A pair agrees in onset within 200 ms, and in offset within 200 ms or a fifth of the true length.

    Source:
        Mesaros et al. 2016, https://doi.org/10.3390/app6060162, as ``EventBasedMetrics`` of sed_eval 0.2.1
        counts, with t_collar 0.2, percentage_of_length 0.2 and optimal matching.

    >>> hits([(0.0, 4.0), (5.0, 5.5)], [(0.1, 3.3), (5.0, 5.8)])
    1
    """
    if not true or not found:
        return 0
    onsets, offsets = np.array(true).T[:, :, None]  # each (n, 1)
    begins, ends = np.array(found).T  # each (m,)
    allowed = np.maximum(COLLAR, SHARE * (offsets - onsets))
    agree = (np.abs(onsets - begins) <= COLLAR) & (np.abs(offsets - ends) <= allowed)
    return int((maximum_bipartite_matching(csr_array(agree)) >= 0).sum())


def spans(active: Sequence[bool], seconds: float) -> list[Span]:
    """Runs of active columns, each ``seconds`` long, as events.

    >>> spans([False, True, True, False, True], 0.5)
    [(0.5, 1.5), (2.0, 2.5)]
    """
    edges = np.flatnonzero(np.diff(np.array([False, *active, False]).astype(np.int8)))
    return [(float(begin) * seconds, float(end) * seconds) for begin, end in edges.reshape(-1, 2)]


def active_columns(events: Sequence[Event], label: str, columns: int, seconds: float) -> NDArray[np.bool_]:
    """Which columns an event of a class has any part in, (T,)."""
    starts = seconds * np.arange(columns)
    found = np.zeros(columns, dtype=bool)
    for event in events:
        if event.label == label:
            found |= (starts < event.end) & (starts + seconds > event.start)
    return found


@torch.inference_mode()
def frame_logits(head: Framewise, clips: Clips, part: Part) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Logits (n, T, C) of every column of a part's clips, and which columns (n, T) hold sound."""
    cache, layer, rows = clips.cache, clips.layer, part.rows.tolist()
    logits, valid = [], []
    for first in range(0, len(rows), BLOCK):
        own = rows[first : first + BLOCK]
        cls, mask = cache.cls(own, layer), cache.mask(own)
        vectors = cache.mean(own, layer) if cls is None else cls
        tokens = cache.tokens(own, layer)
        logits.append(head.logits_over_time(tokens, cache.grid, vectors))
        every = torch.ones(tokens.shape[:2], dtype=torch.bool)
        valid.append(as_grid(every if mask is None else mask, cache.grid).any(dim=1))
    return torch.cat(logits).float().numpy(), torch.cat(valid).numpy()


def event_scores(head: Framewise, clips: Clips, classes: Sequence[str]) -> dict[str, Any] | None:
    """Frame mAP and event-based F1 of the test clips, by class and in all; None without events in them.

    A column (frame) is of a class if an event of it has any part in it. Reported events are runs of columns
    whose logit reaches the class's threshold: that of best F1 on the columns of the validation clips. A
    class without events there has none, and none of its events is found.
    """
    if not len(clips.test) or not any(clips.events.get(id) for id in clips.test.ids):
        return None
    step = clips.column_seconds
    logits, valid = frame_logits(head, clips, clips.test)
    bars = _thresholds(head, clips, classes)
    rows = []
    for number, label in enumerate(classes):
        truth = _truth(clips.events, clips.test, label, logits.shape[1], step)
        if not truth[valid].any():
            continue
        own = logits[:, :, number]
        precision = float(average_precision(truth[valid][:, None].astype(np.uint8), own[valid][:, None])[0])
        row: dict[str, Any] = {"name": label, "ap": precision, "chance": float(truth[valid].mean())}
        rows.append(row | _counts(clips, label, own, valid, bars[number], step))
    if not rows:
        return None
    chosen = any(bar is not None for bar in bars)
    total = {name: sum(row[name] for row in rows) for name in ("true", "found", "hits")}
    return {
        "classes": rows, "frame_map": float(np.mean([row["ap"] for row in rows])),
        "chance": float(np.mean([row["chance"] for row in rows])), "seconds": step,
        "clips": len(clips.test), **total,
        "f1": float(np.mean([row["f1"] for row in rows])) if chosen else None,
        "micro_f1": _f1(total) if chosen else None,
    }  # fmt: skip


def _counts(
    clips: Clips,
    label: str,
    own: NDArray[np.float32],
    valid: NDArray[np.bool_],
    bar: float | None,
    step: float,
) -> dict[str, Any]:
    """True, reported and hit events of a class in all clips, and their F1."""
    counts = {"true": 0, "found": 0, "hits": 0}
    for id, values, sounds in zip(clips.test.ids, own, valid, strict=True):
        true = [(event.start, event.end) for event in clips.events.get(id, ()) if event.label == label]
        found = [] if bar is None else spans(((values >= bar) & sounds).tolist(), step)
        for name, count in (("true", len(true)), ("found", len(found)), ("hits", hits(true, found))):
            counts[name] += count
    return {**counts, "f1": _f1(counts)}


def _f1(counts: Mapping[str, Any]) -> float:
    return float(2 * counts["hits"] / max(1, counts["true"] + counts["found"]))


def _thresholds(head: Framewise, clips: Clips, classes: Sequence[str]) -> list[float | None]:
    if not len(clips.valid) or not any(clips.events.get(id) for id in clips.valid.ids):
        return [None] * len(classes)
    logits, valid = frame_logits(head, clips, clips.valid)
    truth = [_truth(clips.events, clips.valid, own, logits.shape[1], clips.column_seconds) for own in classes]
    return best_thresholds(logits[valid], np.stack(truth, axis=-1)[valid])


def _truth(
    events: Mapping[str, list[Event]], part: Part, label: str, columns: int, step: float
) -> NDArray[np.bool_]:
    """Active columns of a class in a part's clips, (n, T)."""
    return np.stack([active_columns(events.get(id, ()), label, columns, step) for id in part.ids])
