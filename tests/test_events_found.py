"""Frames and events that a head reports: counted as sed_eval and scikit-learn count."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve

from featcache.cache import TokenCache
from featcache.heads.data.tasks import Part
from featcache.heads.explain.events import active_columns, event_scores, frame_logits, hits, spans
from featcache.heads.explain.subject import Clips
from featcache.heads.prototypical import ProtoBin
from featcache.manifest.events import Event

GOLDEN = json.loads((Path(__file__).parent / "golden/sed_eval.json").read_text())
CLASSES = ["label0", "label1", "label2"]
Make = Callable[..., tuple[Path, Path]]


def of(events: list[list[float | str]], label: str) -> list[tuple[float, float]]:
    return [(float(onset), float(offset)) for onset, offset, own in events if own == label]


def test_events_are_counted_as_sed_eval_counts_them() -> None:
    scores, every = [], np.zeros(3)
    for label, wanted in GOLDEN["classes"].items():
        counts = np.zeros(3)  # true, found, hits
        for clip in GOLDEN["clips"]:
            true, found = of(clip["true"], label), of(clip["found"], label)
            counts += (len(true), len(found), hits(true, found))
        assert counts[2] == wanted["hits"]
        scores.append(2 * counts[2] / (counts[0] + counts[1]))
        assert scores[-1] == pytest.approx(wanted["f1"])
        every += counts
    assert np.mean(scores) == pytest.approx(GOLDEN["macro"])
    assert 2 * every[2] / (every[0] + every[1]) == pytest.approx(GOLDEN["micro"])


def test_pairs_are_chosen_so_that_most_events_are_found() -> None:
    # The first found event fits both true ones, the second only the first: a greedy count would stop at 1.
    assert hits([(0.0, 0.3), (0.2, 0.5)], [(0.1, 0.4), (-0.1, 0.3)]) == 2


def test_an_offset_may_be_off_by_a_fifth_of_a_long_event_and_an_onset_may_not() -> None:
    assert hits([(0.0, 4.0)], [(0.15, 4.75)]) == 1
    assert hits([(0.0, 4.0)], [(0.0, 4.85)]) == 0
    assert hits([(0.0, 4.0)], [(0.25, 4.0)]) == 0
    assert hits([], [(0.0, 1.0)]) == hits([(0.0, 1.0)], []) == 0


def test_runs_of_columns_are_events() -> None:
    assert spans([True, True, False, False, True], 0.25) == [(0.0, 0.5), (1.0, 1.25)]
    assert spans([False, False], 1.0) == []
    events = [Event(id="a", start=0.9, end=2.0, label="x"), Event(id="a", start=3.0, end=3.1, label="y")]
    assert active_columns(events, "x", 4, 1.0).tolist() == [True, True, False, False]


@pytest.fixture
def clips(make_tokens: Make) -> Clips:
    """24 clips of six columns of a second; every other one has events of two classes."""
    cache = TokenCache.open(make_tokens(24, dtype="float32")[0])
    random, events = np.random.default_rng(0), {}
    for row, id in enumerate(cache.ids):
        if row % 2:
            events[id] = [
                Event(id=id, start=start, end=start + length, label=label)
                for label in CLASSES[:2]
                for start, length in [(float(random.integers(0, 4)), float(random.integers(1, 3)))]
            ]

    def part(first: int) -> Part:
        rows = np.arange(first, 24, 3)
        ids = tuple(cache.ids[row] for row in rows)
        return Part(rows=rows, targets=np.zeros((8, 3), np.uint8), ids=ids)

    return Clips(
        cache=cache, layer=max(cache.layers), by_row={}, train=part(0), valid=part(1), test=part(2),
        num_classes=3, events=events,
    )  # fmt: skip


@pytest.fixture
def head() -> ProtoBin:
    torch.manual_seed(1)
    return ProtoBin(dim=16, num_classes=3, per_class=4).eval()


def truth(clips: Clips, part: Part, label: str) -> np.ndarray:  # type: ignore[type-arg]
    wanted = np.zeros((8, 6), bool)
    for row, id in enumerate(part.ids):
        for event in clips.events.get(id, ()):
            if event.label == label:
                wanted[row, int(event.start) : int(event.end)] = True
    return wanted


def test_scores_of_a_head_are_those_of_a_plain_count(clips: Clips, head: ProtoBin) -> None:
    found = event_scores(head, clips, CLASSES)
    assert found is not None
    assert [row["name"] for row in found["classes"]] == CLASSES[:2]  # the third has no event
    test, sounds = frame_logits(head, clips, clips.test)
    valid, sounded = frame_logits(head, clips, clips.valid)
    tokens = np.asarray(clips.cache.num_valid)[clips.test.rows]
    assert (sounds.sum(axis=1) == -(-tokens // 2)).all()  # columns of two tokens, time-major
    for number, row in enumerate(found["classes"]):
        own, wanted = test[:, :, number], truth(clips, clips.test, row["name"])
        assert row["ap"] == pytest.approx(average_precision_score(wanted[sounds], own[sounds]))
        assert row["chance"] == pytest.approx(wanted[sounds].mean())
        precision, recall, bars = precision_recall_curve(
            truth(clips, clips.valid, row["name"])[sounded], valid[:, :, number][sounded]
        )
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        bar = bars[np.flatnonzero(np.isclose(f1[:-1], f1[:-1].max()))[-1]]
        counts = np.zeros(3, int)
        for clip, id in enumerate(clips.test.ids):
            true = [(e.start, e.end) for e in clips.events.get(id, ()) if e.label == row["name"]]
            reported, start = [], None
            for column in range(7):
                on = column < 6 and sounds[clip, column] and own[clip, column] >= bar
                if on and start is None:
                    start = column
                if not on and start is not None:
                    reported.append((float(start), float(column)))
                    start = None
            counts += (len(true), len(reported), hits(true, reported))
        assert [row["true"], row["found"], row["hits"]] == counts.tolist()
        assert row["f1"] == pytest.approx(2 * counts[2] / (counts[0] + counts[1]))
    rows = found["classes"]
    assert found["frame_map"] == pytest.approx(np.mean([row["ap"] for row in rows]))
    assert found["f1"] == pytest.approx(np.mean([row["f1"] for row in rows]))
    total = [sum(row[name] for row in rows) for name in ("true", "found", "hits")]
    assert found["micro_f1"] == pytest.approx(2 * total[2] / (total[0] + total[1]))
    assert total[2] > 0


def test_without_events_in_valid_there_are_frames_and_no_events(clips: Clips, head: ProtoBin) -> None:
    for id in clips.valid.ids:
        clips.events.pop(id, None)  # type: ignore[attr-defined]
    found = event_scores(head, clips, CLASSES)
    assert found is not None
    assert (found["f1"], found["found"]) == (None, 0)
    assert found["frame_map"] > 0
    for id in clips.test.ids:
        clips.events.pop(id, None)  # type: ignore[attr-defined]
    assert event_scores(head, clips, CLASSES) is None
