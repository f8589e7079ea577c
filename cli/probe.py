"""``featcache probe``: a token cache to test scores."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featcache.cli.options import PATH, Place

if TYPE_CHECKING:
    from featcache.heads.report.results import Result


@click.command(epilog="Exit codes: 0 done, 1 failed, 2 bad input, 130 stopped (the same command goes on).")
@click.argument("caches", nargs=-1, required=True, type=Place(), metavar="CACHE...")
@click.option(
    "--manifest",
    "manifests",
    multiple=True,
    type=PATH,
    help="Labels and splits (may be repeated); the manifest last extracted from by default.",
)
@click.option(
    "--head", "heads", multiple=True, required=True, help="NAME or NAME:option=value,... (may be repeated)."
)
@click.option("--out", default="results", show_default=True, type=PATH, help="Folder of results.")
@click.option("--search", is_flag=True, help="Search learning rate and weight decay, then train the best.")
@click.option(
    "--preset",
    default="plateau",
    show_default=True,
    help="Protocol: plateau, unmute, bat or fast (docs/protocol.md).",
)
@click.option("--trials", type=click.IntRange(1), help="Trials of a search; half Sobol, half TPE.")
@click.option("--seeds", type=click.IntRange(1), help="Runs of each head; 3, after a search the preset's.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of order, initial weights and search.")
@click.option("--folds", is_flag=True, help="Cross-validate over the column 'fold' of the manifest.")
@click.option(
    "--shots",
    callback=lambda ctx, param, text: _shots(text),
    help="Train clips of each class, as 1,5,10,50,all: one draw each, a smaller part of a larger.",
)
@click.option("--allow-leak", is_flag=True, help="Take splits that tear a recording apart.")
@click.option(
    "--solved/--no-solved",
    default=True,
    show_default=True,
    help="Solve logreg, ridge, knn and centroid as well: references that need no luck.",
)
@click.option(
    "--layer", "layers", multiple=True, type=int, help="Layer to probe (may be repeated); the last."
)
@click.option("--epochs", type=click.IntRange(1), help="Train for so many, the rate along a cosine.")
@click.option("--max-steps", type=click.IntRange(1), help="The most a head may take; 6000 with plateau.")
@click.option("--batch-size", type=click.IntRange(2), help="The preset's by default.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Fix the learning rate.")
@click.option(
    "--lr-range",
    metavar="LOW,HIGH",
    callback=lambda ctx, param, text: _range(text),
    help="Search between these learning rates; the preset's by default.",
)
@click.option("--weight-decay", type=click.FloatRange(0), help="Fix the weight decay.")
@click.option("--loss", help="The preset's for the kind of task by default (docs/protocol.md).")
@click.option("--patience", type=click.IntRange(1), help="Stop a head after so many epochs without gain.")
@click.option("--clip-norm", type=click.FloatRange(0, min_open=True), help="Largest norm of a gradient.")
@click.option(
    "--task", type=click.Choice(["multi-label", "single-label"]), help="Decided by the labels by default."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="CPU threads; those of torch (one a core) by default."
)
@click.option(
    "--device-cache",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Load all tokens to the device once; auto where they fit.",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Compare files of tokens with their checksums when they are first read.",
)
@click.option(
    "--stage",
    "--scratch",
    "stage",
    type=PATH,
    help="A near disk to bring caches to first; of s3:// and the like featcache's own folder by default.",
)
@click.option(
    "--dry-run", is_flag=True, help="Print the plan and its cost, timed on a few batches; keep nothing."
)
@click.option(
    "--log",
    type=click.Choice(["tensorboard", "wandb", "mlflow"]),
    help="Tracker for curves, settings and scores; needs the extra of its name.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON lines.")
def probe(
    caches: tuple[str | Path, ...],
    stage: Path | None,
    manifests: tuple[Path, ...],
    heads: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Train heads on the tokens of each CACHE side by side, and test them.

    All heads learn from one read of each batch, each exactly as it would alone. The same command
    again goes on where it stopped, and trains nothing that OUT has a result of.

    \b
    featcache probe caches/logmel.zarr --head linear --head attentive --head protobin
    featcache probe a.zarr b.zarr --head linear --head protobin --search
    torchrun --nproc-per-node 4 -m featcache.cli probe a.zarr --head protobin --search
    """
    import json

    from featcache.cli.live import Live
    from featcache.heads.probing.probe import probe as run
    from featcache.heads.report.terminal import summary_lines

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    results: list[Result] = []
    costs: list[dict[str, Any]] = []
    for place in caches:
        cache = _near(place, stage, manifests, heads, options["layers"], say)
        results += run(
            cache, manifests, heads=heads, say=say, watch=Live(), progress=True, distributed=True,
            tell=costs.append, **options,
        )  # fmt: skip
    if as_json:
        for cost in costs:
            click.echo(json.dumps(cost))
        for result in results:
            click.echo(json.dumps(result.line))
    elif results:
        for line in summary_lines(results):
            click.echo(line)
        click.echo(f"results: {options['out'] / 'results.jsonl'}")
        click.echo(f"next: featcache compare {options['out']}")


def _near(
    place: str | Path,
    folder: Path | None,
    manifests: tuple[Path, ...],
    heads: tuple[str, ...],
    layers: tuple[int, ...],
    say: Callable[[str], None],
) -> Path:
    """The cache itself, or what these heads need of it on a near disk."""
    from featcache.cache.remote.pull import Layers
    from featcache.cache.remote.stage import stage
    from featcache.home import home

    if isinstance(place, Path) and folder is None:
        return place
    from featcache.heads.options import split_options
    from featcache.heads.registry import head_spec
    from featcache.heads.solved.registry import SOLVED
    from featcache.manifest import load_manifest

    ids = [clip.id for manifest in manifests for clip in load_manifest(manifest)] if manifests else None
    names = [split_options(head)[0] for head in heads]
    every = any(name not in SOLVED and head_spec(name).reads == "layers" for name in names)
    wanted: Layers = None if every else list(layers) or "last"
    path, done = stage(place, folder or home() / "staged", ids=ids, layers=wanted, progress=True)
    say(
        f"{place}: {done.shards} shards ({done.num_bytes / 1e6:.1f} MB) brought to {path}, "
        f"{done.present} were there"
    )
    return path


def _range(text: str | None) -> list[float | str] | None:
    """Numbers where they are numbers; the library says what else is wrong."""
    return None if text is None else [_number(word) for word in text.split(",")]


def _number(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return word


def _shots(text: str | None) -> list[int | str] | None:
    """Numbers where they are numbers; the library says what else is wrong."""
    if text is None:
        return None
    return [int(word) if word.isdigit() else word for word in map(str.strip, text.split(","))]
