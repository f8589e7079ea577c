"""Two questions on real sound: which head, and how many bytes a token.

``python tests/benchmarks/study_soundscapes.py ESC10_FOLDER SCRATCH`` composes multi-label soundscapes
of ESC-10 recordings, extracts ``logmel`` tokens, probes them and writes ``docs/results/*.jsonl``;
``--render`` writes the pages from these lines alone. A run that was stopped goes on where it was.

Protocol: 5 s soundscapes of 1 to 3 events; train from recordings of folds 1-2, valid from fold 3,
test from folds 4-5; learning rate and weight decay of each head by preset ``fast`` (8 Sobol and 8 TPE
trials) on valid; the best setting with 5 seeds; test macro mAP. The sweep of prototypes per class and
the storage dtypes use the setting that its head was given there. All of it was fixed before any run
but one thing: a first run had the preset's 15 epochs in batches of 128, which are 45 steps, and left
most heads undertrained; this one has 30 epochs in batches of 32.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from featcache.datasets.soundscapes import compose
from featcache.datasets.sources import esc10_sources
from featcache.extraction.extract import extract
from featcache.heads.data.loader import num_batches
from featcache.heads.probing.presets import preset_named
from featcache.heads.probing.probe import probe
from featcache.heads.registry import HEADS
from featcache.heads.report.results import Result, read_results
from featcache.heads.report.summary import Cell, cells

RESULTS = Path(__file__).parents[2] / "docs" / "results"
COUNTS = {"train": 300, "valid": 100, "test": 200}
DTYPES = ("float32", "float16", "int8", "int4")
STORED_HEADS = ("linear-mean", "mhca", "ep", "simpool", "protofloat", "protobin")
FEWER = {"cgp": "cgp:num_prototypes=200"}  # as many as protobin, not 10,000
SWEEP = dict.fromkeys(("protofloat", "protobin"), (1, 2, 5, 10, 20, 40))
KEPT = (
    "run",
    "encoder",
    "dataset",
    "head",
    "options",
    "layer",
    "last_layer",
    "fold",
    "metric",
    "lr",
    "weight_decay",
)
ALSO = ("seed", "epoch", "seconds", "classes", "clips", "versions", "device", "loss", "training", "protocol")


def run(esc10: Path, scratch: Path) -> None:
    """Compose, extract, probe; every step is skipped where it was done before."""
    manifest = scratch / "soundscapes" / "manifest.csv"
    if not manifest.exists():
        compose(esc10_sources(esc10), manifest.parent, counts=COUNTS)
    whole = scratch / "float32.zarr"
    extract(manifest, out=whole, encoder="logmel", clip_seconds=5.0, store_dtype="float32", progress=True)
    heads = [FEWER.get(name, name) for name in HEADS]
    settings = {"preset": "fast", "seeds": 5, "epochs": 30, "batch_size": 32, "say": print, "solved": False}
    found = probe(whole, manifest, heads=heads, search=True, out=scratch / "heads", **settings)
    best = {result["head"]: {name: result[name] for name in ("lr", "weight_decay")} for result in found}
    for head, counts in SWEEP.items():
        names = [f"{head}:per_class={count}" for count in counts]
        found += probe(whole, manifest, heads=names, out=scratch / "heads", **best[head], **settings)
    keep("heads", found)
    stored = []
    for dtype in DTYPES:
        cache = whole if dtype == "float32" else scratch / f"{dtype}.zarr"
        if not cache.exists():
            convert = [sys.executable, "-m", "featcache.cli", "cache", "convert", str(whole), str(cache)]
            subprocess.run([*convert, "--dtype", dtype], check=True, cwd="/")
        for head in STORED_HEADS:
            stored += probe(cache, manifest, heads=[head], out=scratch / "stored", **best[head], **settings)
    keep("storage", stored)


def keep(name: str, results: Sequence[Result]) -> None:
    """Write what the pages need of each result: not the paths of this machine."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        for result in results:
            line = {key: result[key] for key in (*KEPT, *ALSO)}
            line["cache"] = {key: result["cache"][key] for key in ("digest", "dtype")}
            for split in ("valid", "test"):
                line[split] = {result["metric"]: result[split][result["metric"]]}
            file.write(json.dumps(line) + "\n")


def render_heads(results: Sequence[Result]) -> str:
    """The table of heads and the sweep of prototypes per class."""
    found = {cell.head: cell for cell in cells(results)}
    plain = sorted((cell for head, cell in found.items() if "per_class" not in head), key=lambda c: -c.mean)
    rows = [
        f"| `{c.head}` | {c.text()} | {c.results[0]['lr']:.2g} | {c.results[0]['weight_decay']:.2g} |"
        for c in plain
    ]
    sweep = []
    for head, counts in SWEEP.items():
        own = by_count(found, head)
        sweep.append(f"| `{head}` | " + " | ".join(own[count].text() for count in counts) + " |")
    return "\n".join(
        [
            *_head("Heads on soundscapes of real recordings, after 300 steps", results),
            "**An earlier study, which does not say which head is best**: all trained for a fixed number of",
            "steps, with the asymmetric loss and without a norm, and many had not reached their plateau.",
            "There `mhca` has 43.5 to 49.3 on these soundscapes instead of 35.5:",
            "[heads at their plateau](plateau.md). The page stays for its sweep of prototypes, and as the",
            "float side of [bytes](storage.md).\n",
            "| head | test mAP, 5 seeds | lr | weight decay |\n|---|---|---|---|",
            *rows,
            "\n## How many prototypes a class, float or binary\n",
            f"| J = | {' | '.join(map(str, counts))} |\n|---|{'---|' * len(counts)}",
            *sweep,
            "",
            *answers(found),
        ]
    )


def by_count(found: Mapping[str, Cell], head: str) -> dict[int, Cell]:
    """The cells of one head by its prototypes per class; its own default is 20."""
    own = [cell for cell in found.values() if cell.results[0]["head"] == head]
    return {cell.results[0]["options"].get("per_class", 20): cell for cell in own}


def answers(found: Mapping[str, Cell]) -> Iterable[str]:
    """What the numbers say, and what they do not."""
    yield "`protofloat` less `protobin`, in points:\n"
    binary = by_count(found, "protobin")
    differences = {n: own.mean - binary[n].mean for n, own in by_count(found, "protofloat").items()}
    yield "; ".join(f"J = {count}: {100 * gap:+.1f}" for count, gap in sorted(differences.items())) + ".\n"
    yield "Not one of these is a finding: they change sign with J, and a repetition on another processor had"
    yield "-0.2 at J = 40.\n"
    high = [f"`{cell.head}`" for cell in found.values() if at_the_top(cell)]
    yield "Within a tenth of the highest learning rate that was searched, and so perhaps not at their best:"
    yield ", ".join(high) + ".\n"
    yield "`logmel` has one layer, so the heads that mix layers mix one. A first run, without these two, had"
    yield "45 steps (15 epochs, batches of 128), which left most heads undertrained; all else was the same.\n"


def at_the_top(cell: Cell) -> bool:
    """Whether the search chose nearly the highest learning rate of its range."""
    chosen = cell.results[0]
    return not chosen["options"] and chosen["lr"] > 0.9 * preset_named("fast").lr_range_of(chosen["head"])[1]


def render_storage(results: Sequence[Result]) -> str:
    """Bytes per token against mAP, per head."""
    table = {
        dtype: {c.head: c for c in cells([r for r in results if r["cache"]["dtype"] == dtype])}
        for dtype in DTYPES
    }
    width = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "int4": 0.5}
    rows = []
    for dtype in DTYPES:
        size = 256 * width[dtype] + (4 if dtype.startswith("int") else 0)  # and one float32 scale a token
        rows.append(
            f"| {dtype} | {size:.0f} | " + " | ".join(table[dtype][h].text() for h in STORED_HEADS) + " |"
        )
    return "\n".join(
        [
            *_head("Bytes per token against mAP", results),
            "`linear-mean` reads the clips' float32 means, which every cache keeps unquantised.\n",
            f"| stored as | bytes per token (D = 256) | {' | '.join(f'`{h}`' for h in STORED_HEADS)} |",
            f"|---|---|{'---|' * len(STORED_HEADS)}",
            *rows,
            "",
        ]
    )


def _head(title: str, results: Sequence[Result]) -> Iterable[str]:
    first = results[0]
    clips, training = first["clips"], first["training"]
    batches = num_batches(clips["train"], training["batch_size"])
    return (
        f"# {title}\n",
        f"Soundscapes of ESC-10 recordings: {clips['train']} train (of folds 1-2), "
        f"{clips['valid']} valid (fold 3), "
        f"{clips['test']} test (folds 4-5); {first['classes']} classes, 1 to 3 events in 5 s; "
        f"`{first['encoder']}` tokens, 8 x 32 of 256. {training['epochs']} epochs of {batches} batches "
        f"are {training['epochs'] * batches} steps.",
        "Each head's learning rate and weight decay: best of 16 trials on valid with float32 tokens",
        "(preset `fast`), the same in every table; then 5 seeds,",
        f"mean ± sd of test macro mAP in per cent. torch {first['versions']['torch']}, {first['device']}.\n",
        "Made by `python tests/benchmarks/study_soundscapes.py ESC10_FOLDER SCRATCH`.\n",
    )


PAGES = {"heads": render_heads, "storage": render_storage}


def render(name: str) -> str:
    """A page from its committed lines."""
    return PAGES[name](read_results([RESULTS / f"{name}.jsonl"]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("esc10", nargs="?", type=Path)
    parser.add_argument("scratch", nargs="?", type=Path)
    parser.add_argument("--render", action="store_true", help="only write the pages from the lines")
    options = parser.parse_args()
    if not options.render:
        run(options.esc10, options.scratch)
    for name in PAGES:
        (RESULTS / f"{name}.md").write_text(render(name), encoding="utf-8")


if __name__ == "__main__":
    main()
