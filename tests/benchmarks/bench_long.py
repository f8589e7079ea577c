"""Does a default run reach what ten times the training and a searched rate reach, and what does it cost?

``python tests/benchmarks/bench_long.py ESC10_FOLDER SCRATCH`` prints, for each cache and head, the test
score of the default run beside that of the same head with its rate searched and a cosine over ten times as
many steps; the bar is that they are within one standard deviation (over folds, or seeds) of each other. A
trained ``linear`` stands beside ``logreg``, solved on the same features; the bar is two points. The last
table times the default run of every head against the same heads for the 30 epochs that were the default
once. ``--head``, ``--cache``, ``--times`` choose parts. Runs are kept in SCRATCH, so it can be stopped and
goes on.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from study_plateau import CACHES, caches

from featcache.heads.probing.probe import probe
from featcache.heads.registry import HEADS
from featcache.heads.report.results import Result

FEWER = {"cgp": "cgp:num_prototypes=200"}  # as many as protobin, not 10,000
OLD = {"epochs": 30, "batch_size": 128}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("esc10", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--head", action="append", choices=[*HEADS], help="may be repeated; all")
    parser.add_argument("--cache", action="append", choices=[*CACHES], help="may be repeated; all")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--trials", type=int, default=8, help="rates that are tried")
    parser.add_argument("--cost", action="store_true", help="the time of all heads alone")
    own = parser.parse_args()
    own.scratch.mkdir(parents=True, exist_ok=True)
    found = caches(own.esc10, own.scratch, own.cache or list(CACHES))
    if own.cost:
        print(cost_table(*found["logmel"], own.scratch / "cost"))
        return
    print("| cache | head | default | steps | long | steps | long - default | within one sd | logreg |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (cache, manifest) in found.items():
        for head in own.head or HEADS:
            settings = {"folds": name != "soundscapes", "out": own.scratch / f"out-{name}"}
            row = compared(cache, manifest, FEWER.get(head, head), own.times, own.trials, settings)
            print(f"| {CACHES[name]} | `{head}` | {row}", flush=True)


def compared(
    cache: Path, manifest: Path, head: str, times: int, trials: int, settings: dict[str, Any]
) -> str:
    """One row: both sides of a head."""
    seeds = 1 if settings["folds"] else 3
    given = {"say": lambda line: None, "seeds": seeds, **settings}
    out = given["out"]
    results = probe(cache, manifest, heads=head, **given)
    default = [result for result in results if not result.get("solved")]
    solved = [result for result in results if result["head"] == "logreg"]
    epochs = round(times * mean(result["epochs"] * result["training"]["passes"] for result in default))
    size = default[0]["training"]["batch_size"]
    long = probe(
        cache, manifest, heads=head, search=True, trials=trials, solved=False,
        **{**given, "epochs": epochs, "batch_size": size, "out": out.with_name(f"{out.name}-long")},
    )  # fmt: skip
    ours, theirs = percent(default), percent(long)
    gap = mean(theirs) - mean(ours)
    near = "yes" if abs(gap) <= stdev(ours) else "no"
    beside = (
        mean(percent([r for r in solved if r["options"]["features"] == "mean"])) if solved else float("nan")
    )
    both = [f"{mean(own):.1f} ± {stdev(own):.1f}" for own in (ours, theirs)]
    return (
        f"{both[0]} | {steps(default):,} | {both[1]} | {steps(long):,} | {gap:+.1f} | {near} | {beside:.1f} |"
    )


def percent(results: Sequence[Result]) -> list[float]:
    return [100 * result.value for result in results]


def steps(results: Sequence[Result]) -> int:
    """Optimizer steps of a run, on average."""
    return round(
        mean(
            result["epochs"] * result["training"]["passes"]
            * -(-result["clips"]["train"] // result["training"]["batch_size"])
            for result in results
        )
    )  # fmt: skip


def cost_table(cache: Path, manifest: Path, out: Path) -> str:
    """Seconds of one seed of every head, a fold at a time: by default, and as it once was."""
    heads = [FEWER.get(head, head) for head in HEADS]
    taken = {}
    for name, more in (("default", {}), ("30 epochs", OLD)):
        began = time.perf_counter()
        results = probe(
            cache, manifest, heads=heads, folds=True, seeds=1, solved=False, out=out / name.replace(" ", "-"),
            say=lambda line: None, **more,
        )  # fmt: skip
        taken[name] = time.perf_counter() - began
        print(f"{name}: {len(results)} runs, {taken[name]:.0f} s", flush=True)
    return f"default / 30 epochs, {len(heads)} heads, five folds: {taken['default'] / taken['30 epochs']:.1f}"


if __name__ == "__main__":
    main()
