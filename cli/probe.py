"""``featcache probe``: a token cache to test scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from featcache.heads.results import Result


@click.command(epilog="Exit codes: 0 done, 1 failed, 2 bad input, 130 stopped.")
@click.argument("caches", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="CACHE...")
@click.option(
    "--manifest",
    "manifests",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Labels and splits (may be repeated); the manifest last extracted from by default.",
)
@click.option("--head", "heads", multiple=True, required=True, help="Name of a head (may be repeated).")
@click.option(
    "--out",
    default="results",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of results and heads.",
)
@click.option("--epochs", type=click.IntRange(1), default=30, show_default=True)
@click.option("--batch-size", type=click.IntRange(2), default=128, show_default=True)
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="1e-3 by default, prototypes 1e-2.")
@click.option("--weight-decay", type=click.FloatRange(0), default=1e-4, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Runs of each head.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of clips.")
@click.option("--folds", is_flag=True, help="Cross-validate over the column 'fold' of the manifest.")
@click.option(
    "--task", type=click.Choice(["multi-label", "single-label"]), help="Decided by the labels by default."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
def probe(
    caches: tuple[Path, ...], manifests: tuple[Path, ...], heads: tuple[str, ...], **options: Any
) -> None:
    """Train heads on the tokens of each CACHE side by side, and test them.

    \b
    featcache probe caches/logmel.zarr --head linear --head attentive --head protobin
    """
    from featcache.heads.probe import probe as run
    from featcache.heads.trial import Training

    training = Training(**{name: options.pop(name) for name in ("epochs", "batch_size", "seed")})
    results = [
        result
        for cache in caches
        for result in run(
            cache, manifests, heads=heads, training=training, say=click.echo, progress=True, **options
        )
    ]
    _table(results)
    click.echo(f"results: {options['out'] / 'results.jsonl'}")


def _table(results: list["Result"]) -> None:
    """One plain line a head."""
    for result in results:
        split = "test" if result["test"] else "valid"
        fold = "" if result["fold"] is None else f" fold {result['fold']}"
        click.echo(
            f"{result['encoder']} {result['dataset']}{fold} {result.label}: {split} {result['metric']} "
            f"{100 * result.value:.2f} (epoch {result['epoch']} of {result['epochs']}, "
            f"{result['seconds']:.1f} s)"
        )
