"""``featcache demo``: both stages in small, on real sound, offline."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featcache.cli.options import PATH

if TYPE_CHECKING:
    from featcache.heads.report.results import Result

HEADS = ("linear", "attentive", "protobin")
BATCH_SIZE = 16  # a few hundred clips fill too few batches of 128; chosen on the validation split
SHARES = {"valid": 0.15, "test": 0.25}  # of the soundscapes; the rest is train
SECONDS = 5.0  # [s] of a soundscape
COLUMN_SECONDS = 0.16  # [s] between logmel's token columns
PICTURED_EVENTS = 3


@click.command(epilog="Exit codes: 0 done, 1 failed, 2 bad input, 130 stopped.")
@click.option(
    "--out",
    default="featcache-demo",
    show_default=True,
    type=PATH,
    help="Folder to fill.",
)
@click.option(
    "--clips", type=click.IntRange(40), default=360, show_default=True, help="Soundscapes to compose."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of soundscapes and heads."
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Runs of each head.")
@click.option("--epochs", type=click.IntRange(1), help="Of each run; until nothing gets better unless given.")
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="That train; batches are small.",
)
def demo(out: Path, clips: int, seed: int, seeds: int, epochs: int | None, threads: int) -> None:
    """See both stages at work on soundscapes composed from recordings that come with featcache.

    Writes about 110 MB into OUT. The same command again finds everything there.

    \b
    featcache demo
    featcache demo --out /tmp/demo --clips 1000 --seed 1
    """
    from featcache.devices import threads as limited
    from featcache.output import keeping, writable

    began = time.perf_counter()
    writable(out)
    with keeping(out):
        _claim(out, {"clips": clips, "seed": seed})
        manifest = _compose(out, clips, seed)
        cache = _extract(manifest, out / "logmel.zarr")
        with limited(threads):
            results = _probe(cache, out / "results", seeds=seeds, seed=seed, epochs=epochs)
            _table(results, cache)
            _picture(results[-1], cache, manifest, out / "found.png")
            _explain(results[-1], out / "explain.html")
    click.echo(f"\nall of it took {time.perf_counter() - began:.0f} s and lies in {out}")
    _next(manifest, out)
    click.echo(f"\nsee and hear what protobin has learned: {(out / 'explain.html').absolute()}")


def _claim(out: Path, settings: dict[str, int]) -> None:
    """Make ``out``, or see that it holds this very demo."""
    from featcache.cache.format.durable import replace_file
    from featcache.errors import InputError

    note = out / "demo.json"
    found = _settings(note)
    if found is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is no demo of featcache; choose another --out")
    if found not in (None, settings):
        made = " ".join(f"--{name} {value}" for name, value in found.items())
        raise InputError(f"{out} holds a demo made with {made}; say the same, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    replace_file(note, json.dumps(settings).encode())


def _settings(note: Path) -> dict[str, int] | None:
    """What a demo was made with; None where there is none, or only a damaged note of it."""
    from featcache.files import read_json

    try:
        found = read_json(note)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _compose(out: Path, clips: int, seed: int) -> Path:
    from tqdm import tqdm

    from featcache.datasets.mixing import Recipe
    from featcache.datasets.soundscapes import compose
    from featcache.datasets.sources import packaged_sounds

    manifest = out / "manifest.csv"
    if manifest.exists():  # it is written last
        click.echo(f"{clips} soundscapes are in {out} already")
        return manifest
    counts = {split: round(share * clips) for split, share in SHARES.items()}
    counts = {"train": clips - sum(counts.values()), **counts}
    sounds = packaged_sounds()
    click.echo(
        f"composing {clips} soundscapes of {SECONDS:g} s from {len(sounds)} CC0 recordings "
        f"({', '.join(f'{split} {count}' for split, count in counts.items())}; no recording in two splits)"
    )
    with tqdm(total=clips, unit="clip", desc="compose") as bar:
        recipe = Recipe(seconds=SECONDS, seed=seed)
        return compose(sounds, out, counts=counts, recipe=recipe, progress=bar.update)


def _extract(manifest: Path, cache: Path) -> Path:
    from featcache.extraction.extract import extract

    click.echo(f"\nfeatcache extract {manifest} --encoder logmel --clip-seconds {SECONDS:g} --out {cache}")
    done = extract(manifest, out=cache, encoder="logmel", clip_seconds=SECONDS, progress=True)
    click.echo(
        f"  {done.encoded} clips encoded, {done.present} already there; "
        f"{done.num_bytes / 1e6:.1f} MB written, {done.seconds:.1f} s"
    )
    return cache


def _probe(cache: Path, out: Path, *, seeds: int, seed: int, epochs: int | None) -> list["Result"]:
    """Each head in a pass of its own, so that each has a time of its own."""
    from featcache.cli.live import Live
    from featcache.heads.probing.probe import probe

    names = " ".join(f"--head {name}" for name in HEADS)
    length = f" --epochs {epochs}" if epochs else ""
    click.echo(
        f"\nfeatcache probe {cache} {names} --seeds {seeds} --seed {seed}{length} "
        f"--batch-size {BATCH_SIZE} --no-solved --out {out}"
    )
    results: list[Result] = []
    fixed: dict[str, Any] = {"epochs": epochs} if epochs else {}
    for name in HEADS:
        results += probe(
            cache, cache.parent / "manifest.csv", heads=[name], out=out, seeds=seeds, seed=seed,
            batch_size=BATCH_SIZE, solved=False, watch=Live(), say=lambda line: click.echo(f"  {line}"),
            **fixed,
        )  # fmt: skip
    return results


def _table(results: Sequence["Result"], path: Path) -> None:
    from featcache.cache import TokenCache
    from featcache.heads.registry import head_spec
    from featcache.heads.report.summary import cells

    cache = TokenCache.open(path)
    per_clip = {"cls": 4 * cache.dim, "tokens": cache.tokens_spec().row_bytes}
    click.echo(f"\n{'head':<12}{'test mAP, %':<16}{'seconds':<10}reads an epoch")
    for name, cell in zip(HEADS, cells(results), strict=True):
        line = cell.results[0]
        reads = head_spec(line["head"]).reads
        size = per_clip[reads] * (line["clips"]["train"] + line["clips"]["valid"]) / 1e6
        seconds = max(result["seconds"] for result in cell.results)
        what = "every token" if reads == "tokens" else "the mean token"
        click.echo(f"{name:<12}{cell.text(1):<16}{seconds:<10.1f}{what}, {size:.1f} MB")
    click.echo(f"mean ± sd of {cell.runs} seeds, trained side by side; seconds are those of all of them")


def _picture(result: "Result", path: Path, manifest: Path, picture: Path) -> None:
    from featcache.cache import TokenCache
    from featcache.heads.explain.explainer import Explainer
    from featcache.manifest import read_manifest
    from featcache.manifest.events import events_file, read_events

    clips = {clip.id: clip for clip in read_manifest(manifest)}
    train = [clip.id for clip in clips.values() if clip.split == "train"]
    explainer = Explainer(
        result, TokenCache.open(path), read_events(events_file(manifest)), train, COLUMN_SECONDS
    )
    share, chance = explainer.pointing()
    clip = explainer.clearest(PICTURED_EVENTS)
    explainer.picture(picture, clip, clips[clip].path)
    click.echo(
        "\nprotobin was told which classes a clip has, never when. The patch with most evidence for a class\n"
        f"lies within its event for {100 * share:.0f} % of the test events; by chance {100 * chance:.0f} %.\n"
        f"{picture} shows a clip that it read well, {clip}."
    )


def _explain(result: "Result", page: Path) -> None:
    from featcache.heads.explain.page import explain
    from featcache.heads.explain.subject import open_subject

    explain(open_subject(result.file("head")), page)


def _next(manifest: Path, out: Path) -> None:
    click.echo(
        f"tokens: {out / 'logmel.zarr'}; results and heads: {out / 'results'}\n"
        "\nlogmel is the spectrogram itself, the floor. Next, an encoder (its weights are fetched once):\n"
        f"  featcache extract {manifest} --encoder eat --clip-seconds {SECONDS:g} --out {out / 'eat.zarr'}\n"
        f"  featcache probe {out / 'eat.zarr'} {' '.join(f'--head {name}' for name in HEADS)} "
        f"--batch-size {BATCH_SIZE} --out {out / 'results'}"
    )
