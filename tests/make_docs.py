"""Write the pages that follow from the code: ``python tests/make_docs.py``."""

from collections.abc import Sequence
from pathlib import Path

import click

from featcache.cli.heads import READS, written
from featcache.cli.main import featcache
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
option (`--head logreg:features=mean+sd`; what `linear` reads unless given). Every probe solves `logreg` on
`mean` and, where the grid has several rows and the features are below 4 GB, on `tfmean`, as a reference
(`--no-solved` leaves them out); a `linear` head more than two points below `logreg` on the same features
is said to be undertrained.

With 100 or more valid clips these choose the strength of the penalty, and the head is fitted on the train
clips. With fewer, five inner folds over train and valid together choose (stratified; the valid scores are
then those of heads that had not seen the clip), and the head is fitted on both. Of equal scores the
stronger penalty wins. `logreg` and `ridge` standardise features by the mean and standard deviation of the
clips that they are fitted on. Scores of `ridge` and `centroid` are no log odds: do not read their ECE.
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
    (DOCS / "heads.md").write_text(render_heads(), encoding="utf-8")
