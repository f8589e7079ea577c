"""Make sed_eval.json: seeded events, and how sed_eval (0.2.1, ``pip install sed_eval``) counts them."""

import json
from pathlib import Path

import numpy as np
import sed_eval

LABELS = ("dog", "rain", "siren")


def drawn(random: np.random.Generator) -> dict[str, list[list[float | str]]]:
    """A crowded clip: reported events are true ones, moved, kept or dropped, and some of their own."""
    true, found = [], []
    for _ in range(random.integers(3, 9)):
        onset, label = round(random.uniform(0, 4), 1), str(random.choice(LABELS))
        offset = round(onset + random.choice([0.3, 0.6, 1.5, 4.0]), 1)
        true.append([onset, offset, label])
        if random.random() < 0.8:
            begin, end = (
                round(edge + random.choice([0, 0.1, 0.2, -0.2, 0.3, -0.5]), 1) for edge in (onset, offset)
            )
            found.append([max(0.0, begin), max(begin + 0.1, end), label])
        if random.random() < 0.3:
            found.append([onset, offset, str(random.choice(LABELS))])
    return {"true": true, "found": found}


def as_lists(events: list[list[float | str]]) -> list[dict[str, float | str]]:
    return [{"event_label": own[2], "onset": own[0], "offset": own[1], "filename": "a.wav"} for own in events]


def main() -> None:
    random = np.random.default_rng(0)
    clips = [drawn(random) for _ in range(60)]
    metrics = sed_eval.sound_event.EventBasedMetrics(
        event_label_list=list(LABELS), t_collar=0.2, percentage_of_length=0.2, event_matching_type="optimal"
    )
    for clip in clips:
        metrics.evaluate(as_lists(clip["true"]), as_lists(clip["found"]))
    result = {
        "classes": {
            label: {
                "hits": int(metrics.class_wise[label]["Ntp"]),
                "f1": metrics.results_class_wise_metrics()[label]["f_measure"]["f_measure"],
            }
            for label in LABELS
        },
        "macro": metrics.results_class_wise_average_metrics()["f_measure"]["f_measure"],
        "micro": metrics.results_overall_metrics()["f_measure"]["f_measure"],
        "clips": clips,
    }
    Path(__file__).with_name("sed_eval.json").write_text(json.dumps(result) + "\n")


main()
