"""Which head reads an encoder best once each has reached its plateau, and what its norms have to do with it.

``python tests/benchmarks/study_plateau.py ESC10_FOLDER SCRATCH`` trains heads with each norm
before their classifier (none, batch) and with and without standardized channels (heads that are not in
``STUDIED`` only as the preset takes them unasked), by the preset ``plateau`` and its fixed learning
rates, on three caches: ``logmel`` and Whisper base's encoder (docs/examples/whisper_ct2.py; skipped,
with the reason, where its weights are not installed) of ESC-10's 400 clips in its five folds, and
``logmel`` of the soundscapes of ``study_soundscapes.py`` with three seeds. It can be stopped at any
time, goes on where it was, and takes ``--head`` and ``--cache``; lines go to
docs/results/plateau.jsonl in place of older ones of the same setting, intervals of pairs to
plateau-pairs.jsonl, and ``--render`` writes the page from these alone.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from featcache.datasets.soundscapes import compose
from featcache.datasets.sources import esc10_sources
from featcache.errors import FeatcacheError
from featcache.extraction.extract import extract
from featcache.heads.data.loader import num_batches
from featcache.heads.probing.presets import preset_named
from featcache.heads.probing.probe import probe
from featcache.heads.registry import HEADS
from featcache.heads.report.results import read_results
from featcache.heads.report.significance import Difference, differences, holm
from featcache.heads.report.summary import Cell, cells

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
SOLVED = tuple(f"logreg:features={features}" for features in ("mean", "mean+max", "tfmean"))
FEWER = {"cgp": {"num_prototypes": 200}}  # as many as protobin, not 10,000
STUDIED = ("linear", "mlp", "linearc", "meanmax", "tfmean", "mhca", "proto", "protofloat", "protobin")
NORMS, CHANNELS = ("none", "batch"), ("none", "channel")
SETTINGS = ("plain", "batch norm", "channels", "channels, batch norm")  # a norm for each of the channels
CACHES = {
    "logmel": "ESC-10, `logmel`",
    "whisper": "ESC-10, Whisper base",
    "soundscapes": "soundscapes, `logmel`",
}
PAIRS = (("protobin", "mhca"), ("mhca", "linear"), ("protobin", "linear"), ("protobin", "protofloat"))
ORDER = ("protobin", "mhca", "linear")
KEPT = (
    "run", "encoder", "dataset", "head", "options", "layer", "last_layer", "fold", "shots", "metric", "loss",
    "lr", "weight_decay", "seed", "epoch", "epochs", "plateau", "kept_last", "at_edge", "solved", "training",
    "protocol", "classes", "clips", "versions", "device", "match", "seconds",
)  # fmt: skip


def variants(head: str) -> list[str]:
    """A head with each norm and with and without standardized channels, as ``--head`` takes it."""
    if head not in STUDIED:
        return [written(head, FEWER.get(head, {}))]
    norms: Iterable[str | None] = NORMS if head != "proto" else (None,)  # proto has no norm
    found = []
    for norm, channels in itertools.product(norms, CHANNELS):
        own = {**FEWER.get(head, {}), **({"norm": norm} if norm else {}), "standardize": channels}
        found.append(written(head, own))
    return found


def written(head: str, options: Mapping[str, object]) -> str:
    """A head with its options, as ``--head`` takes it."""
    return ":".join(
        [head, *([",".join(f"{name}={value}" for name, value in options.items())] * bool(options))]
    )


def caches(esc10: Path, scratch: Path, wanted: Sequence[str]) -> Mapping[str, tuple[Path, Path]]:
    """Cache and manifest of each name; extracted where they are not there."""
    found: dict[str, tuple[Path, Path]] = {}
    folds = scratch / "esc10.csv"
    files = sorted(path for path in esc10.rglob("*") if path.suffix in (".ogg", ".wav"))
    folds.write_text("path,labels,fold\n" + "".join(f"{p},{p.parent.name},{p.name[0]}\n" for p in files))
    mixed = scratch / "soundscapes" / "manifest.csv"
    if "soundscapes" in wanted and not mixed.exists():
        compose(esc10_sources(esc10), mixed.parent, counts={"train": 300, "valid": 100, "test": 200})
    encoders = {"logmel": "logmel", "whisper": f"{ROOT}/docs/examples/whisper_ct2.py:WhisperBase"}
    for name in wanted:
        manifest, path = mixed if name == "soundscapes" else folds, scratch / f"{name}.zarr"
        try:
            extract(manifest, out=path, encoder=encoders.get(name, "logmel"), clip_seconds=5.0, progress=True)
        except FeatcacheError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
        else:
            found[name] = path, manifest
    return found


def run(esc10: Path, scratch: Path, names: Sequence[str], heads: Sequence[str]) -> None:
    """Probe what is asked for, then write the lines of all that is there."""
    for name, (cache, manifest) in caches(esc10, scratch, names).items():
        folds = name != "soundscapes"
        settings = {"out": scratch / f"out-{name}", "folds": folds, "seeds": 1 if folds else 3, "say": print}
        for head in heads:
            probe(cache, manifest, heads=variants(head), solved=False, device_cache="on", **settings)
        probe(cache, manifest, heads=list(SOLVED), solved=False, **settings)
    keep(scratch)


def keep(scratch: Path) -> None:
    """Write what the page needs of each result, and the intervals, which need the scores of single clips."""
    lines = {setting_of(line): line for line in read_lines("plateau")}
    pairs = {(line["name"], *line["pair"]): line for line in read_lines("plateau-pairs")}
    for name in CACHES:
        if not (scratch / f"out-{name}" / "results.jsonl").exists():
            continue
        results = read_results([scratch / f"out-{name}"])
        for result in results:
            line = {key: result.get(key) for key in KEPT} | {"cache": {"dtype": result["cache"]["dtype"]}}
            for split in ("valid", "test"):
                line[split] = {result["metric"]: result[split][result["metric"]]}
            line["name"] = name
            lines[setting_of(line)] = line
        found = by_setting(cells(results))
        for pair in PAIRS:
            if all(complete(found, head) for head in pair):
                both = [best(found, head) for head in pair]
                (gap,) = differences(both)
                pairs[name, *pair] = {"name": name, "pair": list(pair), **signed(gap, both)}
    for file, own in (("plateau", lines), ("plateau-pairs", pairs)):
        text = "".join(json.dumps(line) + "\n" for line in own.values())
        (RESULTS / f"{file}.jsonl").write_text(text, encoding="utf-8")


def read_lines(file: str) -> list[dict[str, Any]]:
    path = RESULTS / f"{file}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def setting_of(line: Mapping[str, Any]) -> tuple[object, ...]:
    """What a line is a measurement of: a later one of the same takes its place."""
    options = line["options"]
    own = (options.get("norm", "none"), options.get("standardize", "none"), options.get("features"))
    return line["name"], line["head"], own, line["fold"], line["seed"]


def complete(found: "Mapping[Setting, Cell]", head: str) -> bool:
    """Whether all variants of a head are there, so that the best can be chosen."""
    return sum(own == head for own, *_ in found) == len(variants(head))


def signed(gap: Difference, both: Sequence[Cell]) -> dict[str, float | str]:
    """First less second, in 0..1, with the interval over test clips: a difference is best less other."""
    turned = gap.best != both[0].head
    low, high = (-gap.high, -gap.low) if turned else (gap.low, gap.high)
    return {"mean": -gap.mean if turned else gap.mean, "low": low, "high": high, "p": gap.p}


Setting = tuple[str, str, str]  # head, norm, standardize


def by_setting(found: Iterable[Cell]) -> dict[Setting, Cell]:
    """Cells by head, norm and standardize; solved heads by their features."""
    table = {}
    for cell in found:
        first = cell.results[0]
        options = first["options"]
        if cell.solved:
            table[f"{first['head']} {options['features']}", "", ""] = cell
        else:
            table[first["head"], options.get("norm", "none"), options.get("standardize", "none")] = cell
    return table


def best(found: Mapping[Setting, Cell], head: str) -> Cell:
    """The setting of a head whose validation score is best: chosen without a look at test."""
    own = [cell for (name, *_), cell in found.items() if name == head]
    return max(own, key=valid_score)


def valid_score(cell: Cell) -> float:
    return sum(float(result["valid"][result["metric"]]) for result in cell.results) / len(cell.results)


def render() -> str:
    """The page from its committed lines."""
    results = read_results([RESULTS / "plateau.jsonl"])
    pairs = read_lines("plateau-pairs")
    tables = {
        name: by_setting(cells([result for result in results if result.get("name") == name]))
        for name in CACHES
    }
    versions, device = results[0]["versions"], results[0]["device"]
    parts = [
        "# Heads at their plateau: how much is training, how much the norm, how much the head\n",
        "Every head by the preset `plateau` with its fixed rates, with each `norm` before its classifier and",
        "with and without standardized channels (`standardize=channel`). ESC-10: 400 clips, 10 classes, five",
        "official folds, one seed a fold, test accuracy in per cent, mean ± sd over folds. Soundscapes: 300",
        "train, 100 valid and 200 test mixtures of ESC-10 recordings, test macro mAP in per cent, mean ± sd",
        "over three seeds. In bold: what `plateau` takes unasked.",
        f"torch {versions['torch']}, {device}. Made by `python tests/benchmarks/study_plateau.py`.",
        "An empty cell was not measured.\n",
    ]
    for name, title in CACHES.items():
        if tables[name]:
            parts += table_of(title, tables[name])
    return "\n".join([*parts, *answers(tables, pairs)]) + "\n"


def table_of(title: str, found: Mapping[Setting, Cell]) -> list[str]:
    """One row a head, one column a setting; in bold what `plateau` takes unasked."""
    order = [*HEADS, *sorted({head for head, *_ in found} - HEADS.keys())]
    columns = list(itertools.product(CHANNELS, NORMS))
    rows = []
    for head in (head for head in order if any(own == head for own, *_ in found)):
        if head not in HEADS:
            rows.append(f"| {head}, solved | {found[head, '', ''].text(1)} | | | |")
            continue
        texts = [text_of(found.get((head, norm, channels)), head) for channels, norm in columns]
        rows.append(f"| `{head}` | {' | '.join(texts)} |")
    return [f"## {title}\n", f"| head | {' | '.join(SETTINGS)} |", "|---|---|---|---|---|", *rows, ""]


def text_of(cell: Cell | None, head: str) -> str:
    if cell is None:
        return ""
    options = cell.results[0]["options"]
    unasked = preset_named("plateau").options_of(head)
    own = all(options.get(name, "none") == unasked.get(name, "none") for name in ("norm", "standardize"))
    mark = "" if all(result.get("plateau") for result in cell.results) else " ‡"
    return f"**{cell.text(1)}**{mark}" if own else f"{cell.text(1)}{mark}"


def answers(
    tables: Mapping[str, Mapping[Setting, Cell]], pairs: Sequence[Mapping[str, Any]]
) -> Iterable[str]:
    """The questions, answered by the numbers of the tables."""
    yield from effects(tables)
    yield from gaps(tables, pairs)
    trained = [result for own in tables.values() for cell in own.values() for result in cell.results]
    trained = [result for result in trained if not result.get("solved")]
    least = sum(steps(result) <= 1000 for result in trained)
    short = [
        f"`{head}` on {CACHES[name]}"
        for name, found in tables.items()
        for (head, *_), cell in found.items()
        if not cell.solved and not all(result.get("plateau") for result in cell.results)
    ]
    yield "## How long they trained\n"
    yield f"Of {len(trained)} runs {least} ended after 1,000 steps, the fewest that the protocol allows: what"
    yield "they would have gained later is a question to [ten times the steps](long.md), not to this page."
    yield f"‡ not at its plateau in every run: {', '.join(dict.fromkeys(short)) or 'none'}.\n"


def steps(result: Mapping[str, Any]) -> int:
    training = result["training"]
    batches = num_batches(result["clips"]["train"], training["batch_size"])
    return int(result["epochs"] * training["passes"] * batches)


def effects(tables: Mapping[str, Mapping[Setting, Cell]]) -> Iterable[str]:
    """What norm and channels change, run by run: the same fold or seed with and without."""
    yield "## What norm and channels change\n"
    yield "Points gained over the plain head, paired by fold (ESC-10) or seed (soundscapes), with the 95 %"
    yield "interval of a paired t-test, which covers the luck of training and of folds; single intervals, not"
    yield "corrected for their number. In bold: those clear of zero.\n"
    yield "| cache | head | batch norm | channels | both |\n|---|---|---|---|---|"
    for name, found in tables.items():
        for head in STUDIED:
            plain = found.get((head, "none", "none"))
            others = [("batch", "none"), ("none", "channel"), ("batch", "channel")]
            if plain is None or not any((head, *own) in found for own in others):
                continue
            texts = [gain(plain, found.get((head, *own))) for own in others]
            yield f"| {CACHES[name]} | `{head}` | {' | '.join(texts)} |"
    yield ""


def gain(plain: Cell, other: Cell | None) -> str:
    if other is None:
        return ""
    before, after = ({(r["fold"], r["seed"]): 100 * r.value for r in cell.results} for cell in (plain, other))
    own = np.array([after[key] - before[key] for key in sorted(before, key=str)])
    reach = stats.t.ppf(0.975, len(own) - 1) * own.std(ddof=1) / len(own) ** 0.5
    text = f"{own.mean():+.1f} ({own.mean() - reach:+.1f} to {own.mean() + reach:+.1f})"
    return f"**{text}**" if abs(own.mean()) > reach else text


def gaps(tables: Mapping[str, Mapping[Setting, Cell]], pairs: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Pairs of heads, each at its best setting and both at the same one."""
    yield "## Pairs of heads\n"
    yield "First less second in points. `chosen`: each head with the setting of best validation score; the"
    yield "interval is over test clips (paired bootstrap, 95 %) and does not cover the luck of training, p is"
    yield "corrected over this table (Holm). The last columns have both heads in the same setting.\n"
    columns = ("cache", "first", "second", "chosen", "interval", "p", "settings", *SETTINGS)
    yield f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"
    for line, p in zip(pairs, holm([own["p"] for own in pairs]), strict=True):
        low, mean, high = (f"{100 * line[key]:+.1f}" for key in ("low", "mean", "high"))
        found, (first, second) = tables[line["name"]], line["pair"]
        settings = [short_of(found, best(found, head)) for head in (first, second)]
        same = [
            between(found.get((first, norm, channels)), found.get((second, norm, channels)))
            for channels, norm in itertools.product(CHANNELS, NORMS)
        ]
        yield (
            f"| {CACHES[line['name']]} | `{first}` | `{second}` | {mean} | {low} to {high} | {p:.2g} "
            f"| {settings[0]}; {settings[1]} | {' | '.join(same)} |"
        )
    yield ""


def short_of(found: Mapping[Setting, Cell], cell: Cell) -> str:
    """A cell's setting in words."""
    _, *own = next(setting for setting, other in found.items() if other is cell)
    pairs = [[norm, channels] for channels, norm in itertools.product(CHANNELS, NORMS)]
    return SETTINGS[pairs.index(own)]


def between(first: Cell | None, second: Cell | None) -> str:
    return "" if first is None or second is None else f"{100 * (first.mean - second.mean):+.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("esc10", nargs="?", type=Path)
    parser.add_argument("scratch", nargs="?", type=Path)
    parser.add_argument("--cache", action="append", choices=list(CACHES), help="may be repeated; all")
    parser.add_argument("--head", action="append", choices=list(HEADS), help="may be repeated; all")
    parser.add_argument("--render", action="store_true", help="only write the page from the lines")
    options = parser.parse_args()
    if not options.render:
        run(options.esc10, options.scratch, options.cache or list(CACHES), options.head or list(HEADS))
    (RESULTS / "plateau.md").write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
