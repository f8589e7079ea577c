"""Write the pages that follow from the code: ``python tests/make_docs.py``."""

from collections.abc import Sequence
from pathlib import Path

import click
from make_sizes import render_sizes

from featcache.cli.datasets import facts
from featcache.cli.heads import READS, written
from featcache.cli.main import featcache
from featcache.datasets.table import DATASETS
from featcache.heads import HEADS, HeadSpec
from featcache.heads.options import describe_options
from featcache.heads.solved.features import FEATURES
from featcache.heads.solved.registry import SOLVED

DOCS = Path(__file__).parents[1] / "docs"
CLI = """# The command line

Made from the commands' own `--help` by `python tests/make_docs.py`; a test fails when it is stale.

Exit codes: 0 done, 1 failed, 2 bad input (one line says what was wanted, what was found and what to
do), 130 stopped by Ctrl-C or SIGTERM with everything finished kept.
"""
HEAD = """# Heads

Made from the table `HEADS` by `python tests/make_docs.py`; a test fails when it is stale.

A head is an `nn.Module`: `(tokens (B, N, D) | None, cls (B, D) | None, valid (B, N) | None) -> logits
(B, C)`. Padding tokens never win a maximum or take attention; `use_padding` lets them, as the paper may
have. Letters: D width of a token, C classes, N tokens, F x T the grid, P prototypes, J prototypes per
class (20; 10 above 500 classes). Options follow the name: `--head protobin:per_class=10,dropout=0.2`;
`featcache heads NAME` says what each takes. A head of yours needs one file and no fork:
[adding a head](adding-a-head.md).

None of these heads could be checked against the authors' trained heads: neither the paper's code nor
its heads are public. Where its text gives a number of parameters (`mhca` about 1.2 M, `protobin` about
155 k for ten classes), ours has that number. Where the paper does not define a head (`linearc`,
`conv`, `linpre`, the width of `mlp`), the simplest reading was chosen, and its row says so.

Prototype scores come from the *match*, `max over tokens of cos(token, prototype)`. It never holds the
(B, N, P) similarities. On CPUs with AVX2 it runs in C compiled when first needed (a C compiler must be
there; without one it runs in torch operations, a block at a time), on CUDA in a Triton kernel.
`FEATCACHE_MATCH=reference` forces the plain form that the fast ones are tested against.

Prototype heads also answer per time step and show where a prototype was found (`featcache.heads.framewise`,
`featcache.heads.explain.localise`); [the demo](demo.md) draws it. Measured on real sound:
[heads](results/heads.md), [bytes per token](results/storage.md).
"""

SOLVED_HEAD = """# Solved heads

These are not trained: a solver ends where nothing is left to gain, so there is no learning rate, no seed
and no luck in their scores. They are named like any head (`--head knn`), on one vector a clip that is an
option (`--head logreg:features=mean+sd`; what `linear` reads unless given). Every probe solves all of
them on `mean` (`knn` up to 100,000 clips) and, where the grid has several rows and the features are below
4 GB, `logreg` on `tfmean`, as references (`--no-solved` leaves them out); a `linear` head more than two
points below `logreg` on the same features, fitted on the same clips, is said to be undertrained.

With 100 or more valid clips these choose the strength of the penalty, and the head is fitted on the train
clips. With fewer, five inner folds over train and valid together choose (stratified; the valid scores are
then those of heads that had not seen the clip), and the head is fitted on both; and on the train clips
alone, to be held against trained heads (`chosen.train_alone` in a result). Of equal scores the
stronger penalty wins. `logreg` and `ridge` standardise features by the mean and standard deviation of the
clips that they are fitted on. Scores of `ridge` and `centroid` are no log odds: do not read their ECE.
"""


DATASET_FACTS = (
    "classes", "sizes", "metric", "audio", "strong", "layout", "hub", "licence", "origin", "citation",
)  # fmt: skip
DATASET = """# Data sets

Made from the table `DATASETS` by `python tests/make_docs.py`; a test fails when it is stale.

```console
featcache manifest esc50 data/ESC-50-master --out esc50.csv  # the manifest of a data set
featcache manifest esc50 data/ESC-50-master --check  # is it whole? reads all audio
featcache extract esc50:data/ESC-50-master --encoder eat --clip-seconds 5 --out caches/esc50.zarr
```

ROOT is the folder in which the official archives were unpacked, or the one above. Nothing is fetched (but
from `hf://`). What a list names and ROOT has not, and splits with fewer files than were published, are an
error; `--allow-missing` (in `extract`, `--skip-failed`) goes on with what is there and says what is not.
`--check` counts, opens and reads every file: what cannot be read, which clips are the same audio under two
names, and which recording is in two splits or folds (exit code 1). In Python:
`featcache.datasets.prepare.prepare(name, root)`.

**No layout could be checked with the real files except ESC-10's**: they were read from the owners' pages,
code and file lists, and the tests build each in miniature. What could not be looked up is said below.

**From the Hugging Face Hub**: `hf://datasets/OWNER/NAME` in place of ROOT (with `@REVISION`, and `/FOLDER`
for a part: `birdset-hsn:hf://datasets/DBD-research-group/BirdSet@data/HSN`) fetches the files whole into the
Hub's cache, once, and reads them from there; or download the repository yourself (`hf download OWNER/NAME
--repo-type dataset --local-dir ROOT`). Where a set says `parquet` below, its shards are read where they lie,
with the audio inside (`pip install 'featcache[parquet]'`); the audio of row 12 has the path
`SHARD.parquet/12`. The rate is that of the stored bytes, not the one that the Hub's metadata declare. A row
group is held in memory whole, two at a time. BirdSet's `.tar.gz` are read where they lie, too
(`SHARD.tar.gz/NAME.ogg`): each is decompressed once for its list, its lengths, its digests and its audio,
and clips are in its order. Unpacked, they are read faster.

**Labels**: `--keep 'dog;rain'` and `--drop` choose labels, `--map names.csv` (columns `label,to`; several
with `;` between, none to take it away) renames them, `--min-count` drops rare ones, in the order map, keep
and drop, count. A clip that loses its last label is left out; one that never had any stays, as a negative.

```bash
featcache manifest clips.csv --keep 'dog;rain' --out two.csv
featcache manifest two.csv --check
```

**Splits**: `--valid 0.1` marks a tenth of the train clips as valid, `--test 0.2` a fifth as test (of all
clips, where none has a split): stratified by label from the rarest on, as a probe holds clips out, with
clips of one file, of equal audio or of one `group` kept together; `--group uploader` takes another column
for that. Recordings are large pieces: with 600 clips of 150 recordings and 20 labels, the share of a label
is off by 0.02 in the mean (iterative stratification of Sechidis et al. 2011: 0.017, chance: 0.05). A manifest
whose splits tear a recording fails `--check`, with the rows named, and a probe refuses it.

```bash
featcache manifest clips.csv --split train --valid 0.1 --out held.csv
```

**Few shots**: `featcache fewshot M.csv --shots 64 --seed 1 --out M64.csv` draws as Bird-MAE does: train
clips with a single label of recordings of at most 20 s, one of each recording first. Draws for fewer shots
are part of those for more (Bird-MAE draws anew). Classes with fewer clips are named.

```bash
featcache fewshot clips.csv --shots 2 --seed 1 --out few.csv
```

**Augmented variants** of train clips, stored beside them (valid and test have none):

```console
featcache extract hsn-64.csv --encoder birdmae --variants 5 --mixup 0.9 --out caches/hsn-64.zarr
featcache probe caches/hsn-64.zarr --head protobin  # the manifest in the cache, clips.csv, lists them
```

A variant is mixed with probability `--mixup`, else it is a copy, which takes no room. It gets one to
`--mixup-sources` (3) other train clips, all different, each turned round its end by a random share of its
length and repeated or cut to the clip's; a level is drawn from `--mixup-snr` (2 to 30 dB), and each is laid
so far below what is there by then. Labels are the union, so a single-label set becomes multi-label. The
column `variant` of the cache's manifest says what is in each: ids, digests of their audio, shifts, level.
The draw follows from `--variant-seed`, the clip's audio and the set of train clips, not from their order;
with more train clips it is another. A cache with variants has a fingerprint of its own. A probe that holds
out clips, or draws shots, leaves out variants in which anything is not a train clip of its own.

These are the rules of BirdSet's `MultilabelMix` with Bird-MAE's values. What the paper stored (five
variants, p = 0.9) is known no further, so this is chosen here: the clip itself stays as a sixth, partners
come from the manifest's train clips (draw the few shots first), and each variant draws how many lie over it
where the original draws that once a batch.

**Event times** (strong labels), where a set has them, are written beside the manifest: `M.events.csv` for
`M.csv`, with the columns `id,start,end,label`, in seconds of the clip; extracted in windows, each window has
the parts that lie in it. `Explainer` in
`featcache.heads.explain.explainer` holds against them where a prototype head found each class (`pointing()`:
the share of events that it points into, and what that would be by chance). They are read and written so:

```python
from featcache.manifest.events import Event, read_events, write_events

write_events("clips.events.csv", [Event(id="audio/0.wav", start=0.5, end=1.25, label="dog")])
assert read_events("clips.events.csv")["audio/0.wav"][0].end == 1.25
```

Data sets that are not listed: any CSV file with paths and labels is a manifest
([columns](quickstart.md#1-list-your-clips)); [one from Debian](tones.md) as an example.
"""


def pages(command: click.Command, name: str, parent: click.Context | None = None) -> list[str]:
    """The help of a command and of all its subcommands, as Markdown."""
    context = click.Context(
        command, info_name=name.split()[-1], parent=parent, max_content_width=100, terminal_width=100
    )
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    found = [f"## {name}\n\n```text\n{text}\n```\n"]
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found += pages(command.get_command(context, child), f"{name} {child}", context)
    return found


def render_cli() -> str:
    """docs/cli.md"""
    return "\n".join([CLI, *pages(featcache, "featcache")])


def render_heads() -> str:
    """docs/heads.md"""
    rows = []
    for spec in HEADS.values():
        paper = "" if spec.in_paper else " Beyond the paper's eleven."
        rows.append(
            f"## `{spec.name}`\n\n{spec.summary[0].upper()}{spec.summary[1:]}.{paper}\n\n"
            f"| | |\n|---|---|\n| formula | `{spec.formula}` |\n| reads | {READS[spec.reads]} |\n"
            f"| parameters | `{spec.parameters}` |\n| options | {_options(spec)} |\n"
            f"| source | {spec.source} |\n"
        )
    return "\n".join([HEAD, *rows, SOLVED_HEAD, *_solved()])


def render_datasets() -> str:
    """docs/datasets.md"""
    rows = []
    for spec in DATASETS.values():
        own = {**facts(spec), "sizes": ", ".join(f"{split} {n:,}" for split, n in spec.sizes.items())}
        lines = "\n".join(f"| {key} | {own[key]} |" for key in DATASET_FACTS)
        rows.append(f"## `{spec.name}`\n\n{spec.title}. {spec.note}\n\n| | |\n|---|---|\n{lines}\n")
    return "\n".join([DATASET, *rows])


def _solved() -> list[str]:
    """The solved heads, and the features that they may have."""
    rows = [
        f"## `{spec.name}`\n\n{spec.summary[0].upper()}{spec.summary[1:]}.\n\n| | |\n|---|---|\n"
        f"| formula | `{spec.formula}` |\n"
        f"| chosen | {_path(spec.knob, spec.strengths)} |\n| source | {spec.source} |\n"
        for spec in SOLVED.values()
    ]
    features = "\n".join(f"| `{spec.name}` | {spec.summary} |" for spec in FEATURES.values())
    return [*rows, f"## Features of solved heads\n\n| features | of a clip |\n|---|---|\n{features}\n"]


def _path(knob: str | None, strengths: Sequence[float]) -> str:
    return f"`{knob}` of {', '.join(f'{value:g}' for value in strengths)}" if knob else "nothing"


def _options(spec: HeadSpec) -> str:
    return ", ".join(f"`{name}={written(default)}`" for name, default, _ in describe_options(spec))


if __name__ == "__main__":
    (DOCS / "cli.md").write_text(render_cli(), encoding="utf-8")
    (DOCS / "datasets.md").write_text(render_datasets(), encoding="utf-8")
    (DOCS / "sizes.md").write_text(render_sizes(), encoding="utf-8")
    (DOCS / "heads.md").write_text(render_heads(), encoding="utf-8")
