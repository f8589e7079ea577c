"""``featcache predict``: a trained head on new sound."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featcache.cli.options import PATH, encoder_options

if TYPE_CHECKING:
    from featcache.heads.predicting.decide import Decision, Detection
    from featcache.heads.predicting.predictor import Predictor
    from featcache.heads.predicting.recordings import Scored


@click.command(
    epilog="Exit codes: 0 done, 1 failed, 2 bad input (files that could not be decoded count), 130 stopped."
)
@click.argument("head", type=PATH)
@click.argument("audio", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, help="A table, .csv, .jsonl or .parquet; CSV to the terminal by default.")
@click.option("--audacity", type=PATH, help="Folder for a label track of Audacity of each recording.")
@click.option("--raven", type=PATH, help="Folder for a selection table of Raven of each recording.")
@click.option("--frames", type=PATH, help="Folder for logits over time (.npz), from prototypical heads.")
@click.option("--threshold", type=float, help="Report classes of at least this probability.")
@click.option("--top", type=int, help="Report so many classes of highest score in each window.")
@click.option(
    "--window", "window_seconds", type=float, help="Length [s] of windows; the head's clips by default."
)
@click.option(
    "--hop", "hop_seconds", type=float, help="Time between window starts [s]; their length by default."
)
@click.option("--encoder", help="The encoder, where it is FILE.py:CLASS or a folder; else the head knows it.")
@click.option("--weights", help="Its checkpoint: a path, hf-hub:OWNER/NAME, or a URL.")
@encoder_options
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option(
    "--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Windows per batch."
)
@click.option("--workers", type=click.IntRange(1), help="Decoding threads; the number of cores, at most 8.")
@click.option("--skip-failed", is_flag=True, help="Exit with 0 although some files could not be decoded.")
def predict(head: Path, audio: tuple[Path, ...], **options: Any) -> None:
    """Say what HEAD, trained by 'featcache probe', hears in AUDIO: files, folders or manifests.

    Long recordings are cut into windows. Of a head for clips of one label, the best class of each window
    is reported; of others, all classes above the thresholds that were best on its validation clips.

    \b
    featcache predict results/heads/eat-birds-protobin-0f3c.safetensors recordings/ --out found.csv
    featcache predict head.safetensors night.flac --hop 1 --threshold 0.5 --raven tables/
    """  # fmt: skip
    from featcache.heads.predicting.decide import decision
    from featcache.heads.predicting.opening import open_predictor
    from featcache.heads.predicting.recordings import recordings, score
    from featcache.heads.predicting.tables import check_table, write_csv, write_rows
    from featcache.output import keeping, writable, writable_file

    out, folders = options["out"], {kind: options[kind] for kind in ("audacity", "raven", "frames")}
    if out:
        check_table(out)
        writable_file(out)
    for folder in filter(None, folders.values()):
        writable(folder)
    predictor = open_predictor(
        head, encoder=options["encoder"], weights=options["weights"],
        encoder_options=options["encoder_options"], device=options["device"],
    )  # fmt: skip
    rule = decision(
        predictor.classes, predictor.single, predictor.config.get("thresholds"),
        threshold=options["threshold"], top=options["top"],
    )  # fmt: skip
    manifest = recordings(audio)
    failed: dict[str, str] = {}
    windows = score(
        predictor, manifest, window_seconds=options["window_seconds"], hop_seconds=options["hop_seconds"],
        frames=bool(folders["frames"]), batch_size=options["batch_size"], workers=options["workers"],
        failed=failed, progress=True,
    )  # fmt: skip
    found = _by_recording(predictor, rule, windows, [str(clip.path) for clip in manifest], folders)
    with keeping(out or Path("the terminal"), "nothing was written there"):
        if out:
            count = write_rows(out, found)
            click.echo(f"{out}: {count:,} detections in {len(manifest) - len(failed):,} recordings")
        else:
            write_csv(sys.stdout, found)
    for name, reason in failed.items():
        click.echo(f"failed: {name}: {reason}", err=True)
    if failed and not options["skip_failed"]:
        raise click.exceptions.Exit(2)


def _by_recording(
    predictor: "Predictor",
    rule: "Decision",
    windows: "Iterator[Scored]",
    files: list[str],
    folders: dict[str, Path | None],
) -> "Iterator[list[Detection]]":
    """Each recording's detections, after its own tables are written."""
    from itertools import groupby

    from featcache.cache.format.durable import replace_file
    from featcache.encoders.columns import column_seconds
    from featcache.heads.predicting import tables

    names, encoder = tables.names_for(files), predictor.runner.encoder
    nyquist, step = encoder.sample_rate / 2, column_seconds(encoder)
    for folder in filter(None, folders.values()):
        folder.mkdir(parents=True, exist_ok=True)
    for file, own in groupby(windows, key=lambda window: window.file):
        scored: list[Scored] = []
        rows: list[Detection] = []
        for window in own:
            rows += rule.detections(window)
            if window.frames is not None:
                scored.append(window)
        name = names.get(file, Path(file).stem)
        if folders["audacity"]:
            replace_file(
                folders["audacity"] / f"{name}.txt", tables.audacity_labels(rows).encode(), durable=False
            )
        if folders["raven"]:
            text = tables.raven_selections(rows, nyquist)
            replace_file(folders["raven"] / f"{name}.selections.txt", text.encode(), durable=False)
        if folders["frames"]:
            tables.write_frames(folders["frames"] / f"{name}.npz", scored, predictor.classes, step)
        yield rows
