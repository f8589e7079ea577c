"""Does a default run reach what ten times the training and a searched rate reach, and what does it cost?

``python tests/benchmarks/bench_long.py ESC10_FOLDER SCRATCH`` holds, for each cache and head, the test
score of the default run against that of the same head at the best of three rates (by validation score, each
tried by the default protocol), trained for ten times as many steps by one cosine, the weights kept by the
same rule. The bar is that the default lies at most one standard deviation (its own, over folds or seeds)
below. A trained ``linear`` stands beside ``logreg``, solved on the same features; the bar is two points.
``--head``, ``--cache``, ``--times`` choose parts. Runs are kept in SCRATCH, so it can be stopped and goes on;
lines go to docs/results/long.jsonl, and ``--render`` writes the page from these alone. ``--cost`` measures
the processor time of the default run of every head instead, against 30 epochs of 128 clips.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from study_plateau import CACHES, FEWER, RESULTS, by_setting, caches, written

from featcache.heads.data.checks import FEW_CLIPS
from featcache.heads.probing.presets import preset_named
from featcache.heads.probing.probe import probe
from featcache.heads.registry import HEADS
from featcache.heads.report.results import Result, read_results
from featcache.heads.report.summary import cells

LINES = RESULTS / "long.jsonl"
SPREAD = 4.0  # between the rates that are tried
COLUMNS = (
    "head", "default", "steps", "long", "steps", "rate", "rate, long", "default at that rate",
    "default - long", "holds", "logreg",
)  # fmt: skip
OLD = {"epochs": 30, "batch_size": 128}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("esc10", nargs="?", type=Path)
    parser.add_argument("scratch", nargs="?", type=Path)
    parser.add_argument("--head", action="append", choices=[*HEADS], help="may be repeated; all")
    parser.add_argument("--cache", action="append", choices=[*CACHES], help="may be repeated; all")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--cost", action="store_true", help="the time of all heads alone")
    parser.add_argument("--render", action="store_true", help="only write the page from the lines")
    own = parser.parse_args()
    if not own.render:
        own.scratch.mkdir(parents=True, exist_ok=True)
        names = ["logmel"] if own.cost else own.cache or list(CACHES)
        found = caches(own.esc10, own.scratch, names)
        if own.cost:
            print(cost(*found["logmel"], own.scratch / "cost"))
            return
        for name, (cache, manifest) in found.items():
            for head in own.head or HEADS:
                settings = {"folds": name != "soundscapes", "out": own.scratch / f"out-{name}"}
                row = compared(cache, manifest, written(head, FEWER.get(head, {})), own.times, settings)
                keep({"name": name, "head": head, **row})
    (RESULTS / "long.md").write_text(render(lines()), encoding="utf-8")


def compared(cache: Path, manifest: Path, head: str, times: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Both sides of a head, and what is solved on the same features."""
    seeds = 1 if settings["folds"] else 3
    given = {"say": lambda line: None, "seeds": seeds, "device_cache": "on", **settings}
    results = probe(cache, manifest, heads=head, **given)
    default = [result for result in results if not result.get("solved")]
    means = [r for r in results if r["head"] == "logreg" and r["options"]["features"] == "mean"]
    lr, size = default[0]["lr"], default[0]["training"]["batch_size"]
    tried = {
        rate: default if rate == lr else probe(cache, manifest, heads=head, lr=rate, solved=False, **given)
        for rate in rates(head.split(":")[0], lr)
    }
    best = max(tried, key=lambda rate: mean(valid_score(result) for result in tried[rate]))
    epochs = round(times * mean(result["epochs"] * result["training"]["passes"] for result in default))
    few = min(result["clips"]["valid"] for result in default) < FEW_CLIPS
    given["out"] = settings["out"].with_name(f"{settings['out'].name}-long")
    long = probe(
        cache, manifest, heads=head, lr=best, epochs=epochs, batch_size=size, solved=False,
        select="last" if few else "best", **given,
    )  # fmt: skip
    sides = {"default": default, "long": long, **({"logreg": means} if means else {})}
    if best != lr:
        sides["rate"] = tried[best]
    scores = {side: [100 * result.value for result in found] for side, found in sides.items()}
    return {
        "metric": default[0]["metric"],
        "scores": scores,
        "steps": {"default": steps(default), "long": steps(long)},
        "lr": {"default": lr, "long": best},
        "versions": default[0]["versions"],
        "device": default[0]["device"],
    }


def rates(head: str, lr: float) -> list[float]:
    """The default's and one on each side of it, inside the range in which the preset searches."""
    low, high = preset_named("plateau").lr_range_of(head)
    return sorted({max(low, lr / SPREAD), lr, min(high, lr * SPREAD)})


def valid_score(result: Result) -> float:
    return float(result["valid"][result["metric"]])


def steps(results: Sequence[Result]) -> int:
    """Optimizer steps of a run, on average."""
    return round(
        mean(
            result["epochs"] * result["training"]["passes"]
            * -(-result["clips"]["train"] // result["training"]["batch_size"])
            for result in results
        )
    )  # fmt: skip


def lines() -> list[dict[str, Any]]:
    text = LINES.read_text("utf-8") if LINES.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def keep(row: dict[str, Any]) -> None:
    """Add a row to the lines, in place of an older one of the same cache and head."""
    others = [own for own in lines() if (own["name"], own["head"]) != (row["name"], row["head"])]
    LINES.write_text("".join(json.dumps(own) + "\n" for own in [*others, row]), encoding="utf-8")
    print(text_of(row), flush=True)


def text_of(row: dict[str, Any]) -> str:
    """A line of the table: what is below by more than one sd is in bold."""
    ours, theirs = row["scores"]["default"], row["scores"]["long"]
    gap = mean(ours) - mean(theirs)
    same = HEADS[row["head"]].family == "clip vector" and "logreg" in row["scores"]  # the mean token, too
    solved = f"{mean(row['scores']['logreg']):.1f}" if same else ""
    rate = spread(row["scores"]["rate"]) if "rate" in row["scores"] else ""
    near = "yes" if gap >= -stdev(ours) else "**no**"
    columns = [
        f"`{row['head']}`", spread(ours), f"{row['steps']['default']:,}", spread(theirs),
        f"{row['steps']['long']:,}", f"{row['lr']['default']:g}", f"{row['lr']['long']:g}", rate,
        f"{gap:+.1f}", near, solved,
    ]  # fmt: skip
    return f"| {' | '.join(columns)} |"


def spread(scores: Sequence[float]) -> str:
    return f"{mean(scores):.1f} ± {stdev(scores):.1f}"


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The page from its committed lines."""
    first = rows[0]
    parts = [
        "# The default run against ten times the training\n",
        "Every head by the default protocol (`plateau` with its fixed rate) beside the same head at the best",
        "of three rates by validation score, trained for ten times the steps by one cosine. Test accuracy",
        "(ESC-10, mean ± sd over five folds, one seed each) or macro mAP (soundscapes, over three seeds) in",
        "per cent. A head holds where its default run lies at most one sd below the long one. What the rate",
        "alone does stands in `default at that rate`: the default protocol, its number of steps included, at",
        "the rate of the long run (empty: the same rate, or not kept). `logreg` is",
        "solved on the mean token, which `linear` and `mlp` read. The default runs are not those of",
        "[the study](plateau.md) but later ones with the same seeds; what the code has changed since, mostly",
        f"in how it rounds, moved {farthest(rows)}.",
        f"torch {first['versions']['torch']}, {first['device']}. Made by",
        "`python tests/benchmarks/bench_long.py`; heads that are not listed were not measured.\n",
    ]
    for name, title in CACHES.items():
        own = [row for row in rows if row["name"] == name]
        if own:
            own.sort(key=lambda row: list(HEADS).index(row["head"]))
            parts += [
                f"## {title}\n",
                f"| {' | '.join(COLUMNS)} |",
                "|---" * len(COLUMNS) + "|",
                *map(text_of, own),
                "",
            ]
    return "\n".join(parts)


def farthest(rows: Sequence[dict[str, Any]]) -> str:
    """The head whose default run differs most from that of the study, whose code was another version."""
    results = read_results([RESULTS / "plateau.jsonl"])
    apart = {}
    for name in CACHES:
        found = by_setting(cells([result for result in results if result.get("name") == name]))
        for row in (row for row in rows if row["name"] == name):
            own = preset_named("plateau").options_of(row["head"])
            cell = found.get((row["head"], own.get("norm", "none"), own.get("standardize", "none")))
            if cell is not None:
                apart[row["head"], name] = abs(100 * cell.mean - mean(row["scores"]["default"]))
    head, name = max(apart, key=lambda key: apart[key])
    return f"`{head}` most, by {apart[head, name]:.1f} points ({CACHES[name]})"


def cost(cache: Path, manifest: Path, out: Path) -> str:
    """Processor seconds of one seed of every head, all folds: by default, and as it once was."""
    heads = [written(head, FEWER.get(head, {})) for head in HEADS]
    taken = {}
    for name, more in (("default", {}), ("30 epochs", OLD)):
        before = os.times()
        results = probe(
            cache, manifest, heads=heads, folds=True, seeds=1, solved=False, out=out / name.replace(" ", "-"),
            say=lambda line: None, **more,
        )  # fmt: skip
        after = os.times()
        taken[name] = after.user + after.system - before.user - before.system
        print(f"{name}: {len(results)} runs, {taken[name]:.0f} s of processor time", flush=True)
    return f"default / 30 epochs, {len(heads)} heads, five folds: {taken['default'] / taken['30 epochs']:.1f}"


if __name__ == "__main__":
    main()
