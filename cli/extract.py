"""``featcache extract``: audio files to a token cache."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featcache.cli.extract_report import announce, finish, report_plan
from featcache.cli.options import PATH, Gpus, Place, encoder_options, slurm_options
from featcache.errors import InputError

if TYPE_CHECKING:
    from featcache.datasets.prepare import Prepared
    from featcache.extraction.result import Extraction
    from featcache.manifest import Manifest


@click.command(
    epilog="Exit codes: 0 done, 1 failed, 2 bad input (clips that could not be decoded count), 130 stopped."
)
@click.argument("manifest", type=PATH)
@click.option(
    "--out", required=True, type=Place(), help="The token cache to make or to grow; s3:// and the like too."
)
@click.option(
    "--scratch",
    type=PATH,
    help="Folder for shards on their way to an s3:// or the like.",
)
@click.option(
    "--encoder",
    default="logmel",
    show_default=True,
    help="Name ('featcache encoders'), hf:OWNER/NAME, or FILE.py:CLASS.",
)
@click.option("--weights", help="Checkpoint: a path, hf-hub:OWNER/NAME, or a URL.")
@encoder_options
@click.option("--from-folders", is_flag=True, help="MANIFEST is a folder that holds one folder per class.")
@click.option(
    "--clip-seconds", type=float, help="Clip length [s] the encoder is built for; its authors' by default."
)
@click.option("--layers", help="Block outputs to keep: 12, 1-12, 6,12 or all; the last by default.")
@click.option(
    "--window",
    "window_seconds",
    type=float,
    help="Split longer clips into windows of this length [s] instead of cutting.",
)
@click.option(
    "--hop", "hop_seconds", type=float, help="Time between window starts [s]; the window length by default."
)
@click.option(
    "--variants",
    type=click.IntRange(1),
    help="Store so many augmented variants of each train clip, too; none unless given.",
)
@click.option(
    "--mixup",
    type=click.FloatRange(0, 1),
    default=0.9,
    show_default=True,
    help="Probability that a variant has other train clips over it (labels: the union).",
)
@click.option(
    "--mixup-snr",
    type=float,
    nargs=2,
    default=(2.0, 30.0),
    show_default=True,
    help="Lowest and highest level of a clip against what is laid over it [dB].",
)
@click.option(
    "--mixup-sources",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="The most clips that are laid over one.",
)
@click.option(
    "--variant-seed", type=click.IntRange(0), default=0, show_default=True, help="Of what variants draw."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="Precision the encoder computes in; the frontend is always fp32.",
)
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile the encoder (torch.compile) for clips of full length; takes a minute.",
)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Clips per batch.")
@click.option(
    "--workers", type=click.IntRange(1), help="Decoding threads; the number of cores, at most 8, by default."
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="CPU threads of the encoder; those of torch (one a core) by default.",
)
@click.option(
    "--store-dtype",
    default="float16",
    show_default=True,
    type=click.Choice(["float16", "float32", "bfloat16", "int8", "int4"]),
    help="Precision on disk.",
)
@click.option("--codec", help="Compress tokens (zstd, blosc): smaller, much slower to read, not mapped.")
@click.option("--shard-clips", type=click.IntRange(1), help="Clips per shard file; about 192 MB by default.")
@click.option(
    "--reuse",
    multiple=True,
    type=PATH,
    help="Copy tokens of the same fingerprint from this cache (may be repeated).",
)
@click.option("--skip-failed", is_flag=True, help="Leave out clips that are missing or damaged; exit with 0.")
@click.option("--path-column", help="The column of paths, where it is not called path, filename or file.")
@click.option(
    "--label-column", help="The column of labels, where it is not called labels, label, class or category."
)
@click.option(
    "--accept-truncated",
    is_flag=True,
    help="Encode what is there of files that were cut off; they fail otherwise.",
)
@click.option(
    "--rehash", is_flag=True, help="Read every file to see which audio it holds; forget what is remembered."
)
@click.option(
    "--writer",
    metavar="r/N",
    help="Write every N-th shard, beside other processes (r from 0); slurm: as its task says.",
)
@click.option(
    "--takeover", is_flag=True, help="With several writers: when done, write shards of others not begun yet."
)
@click.option(
    "--decode-timeout",
    type=float,
    help="Decode in processes of their own; a clip that takes so long [s], or ends one, counts as failed.",
)
@click.option(
    "--profile",
    type=PATH,
    help="Say where the time went, and write a trace for chrome://tracing to this file.",
)
@click.option(
    "--plan", "plan_only", is_flag=True, help="Say what it would cost, measured on 16 clips; encode none."
)
@click.option("--launcher", type=click.Choice(["slurm"]), help="Queue the work as jobs (submitit), and end.")
@click.option(
    "--gpus",
    type=Gpus(),
    help="A process for each of so many GPUs here, all by default; with --launcher, a job for each.",
)
@click.option("--partition", help="With --launcher: of SLURM.")
@slurm_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def extract(
    manifest: Path,
    from_folders: bool,
    as_json: bool,
    skip_failed: bool,
    path_column: str | None,
    label_column: str | None,
    launcher: str | None,
    gpus: str | None,
    partition: str | None,
    slurm_options: dict[str, str],
    **options: Any,
) -> None:
    """Run a frozen encoder over every clip of MANIFEST and keep all patch tokens.

    MANIFEST is a CSV file with the header path,labels and optional id,start,end,split,fold,group, or
    NAME:ROOT, a data set ('featcache datasets') and the folder in which it was unpacked.
    Running the same command again goes on where it stopped, and adds only clips that are new.

    \b
    featcache extract clips.csv --encoder logmel --out caches/logmel.zarr
    featcache extract clips.csv --encoder audiomae --weights pretrained.pth --out caches/mae.zarr
    featcache extract esc50:data/ESC-50-master --encoder eat --clip-seconds 5 --out caches/esc50.zarr
    featcache extract clips.csv --encoder audiomae --weights pretrained.pth --out caches/mae.zarr --plan
    featcache extract hsn-64.csv --encoder birdmae --variants 5 --out caches/hsn-64.zarr
    featcache extract clips.csv --encoder eat --out caches/eat.zarr --dtype bf16 --gpus 4
    """  # fmt: skip
    if launcher:
        from featcache.cli.submit import submit_extraction

        submit_extraction(click.get_current_context())
        return
    if partition or slurm_options:
        raise InputError("--partition and --slurm are for jobs; give --launcher slurm")
    shared = gpus or _has_gpus_to_share(options)
    if shared and options["plan_only"]:
        options |= _as_one_of_several(gpus or "all", options)
    elif shared:
        from featcache.cli.ranks import extract_on_gpus

        context = click.get_current_context()
        context.params["gpus"] = gpus or "all"
        finish(extract_on_gpus(context), as_json, False, skip_failed)
        return
    from featcache.extraction.extract import extract as run
    from featcache.manifest import from_folders as read_folders
    from featcache.manifest import read_manifest

    prepared = None if from_folders else _prepared(str(manifest), skip_failed)
    if prepared:
        clips = prepared.manifest
    elif from_folders:
        clips = read_folders(manifest)
    else:
        clips = read_manifest(manifest, path_column=path_column, label_column=label_column)
    if clips.notes:
        click.echo(f"{manifest}: {'; '.join(clips.notes)}", err=True)
    for problem in prepared.problems if prepared else ():
        click.echo(f"not whole: {problem}", err=True)
    done = run(
        clips, skip_failed=skip_failed, progress=True, announce=partial(announce, err=as_json), **options
    )
    if options["plan_only"]:
        report_plan(done, as_json)
        return
    if not done.address:
        _keep_events(clips, done, prepared)
    elif prepared:
        click.echo("event times are not copied to another place: 'featcache manifest' writes them", err=True)
    finish(done, as_json, bool(options["profile"]), skip_failed)


def _has_gpus_to_share(options: Mapping[str, Any]) -> bool:
    """Whether there are several GPUs, and nothing says that this process takes one or a share of the work."""
    import os

    from featcache.cli.ranks import gpus_here

    for_one = options["device"] != "auto" or options["writer"] or options["profile"]
    launched = "LOCAL_RANK" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    return not (for_one or launched) and gpus_here() > 1


def _as_one_of_several(gpus: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a plan for so many GPUs: that of the first process."""
    from featcache.cli.ranks import gpus_wanted
    from featcache.extraction.sounds import decoding_threads

    count = gpus_wanted(gpus, options)
    return {"writer": f"0/{count}", "workers": options["workers"] or decoding_threads(count)}


def _prepared(source: str, allow_missing: bool) -> "Prepared | None":
    """The data set of NAME:ROOT; None where the source is a path."""
    from featcache.datasets.prepare import named_source, prepare

    named = named_source(source)
    return prepare(*named, allow_missing=allow_missing) if named else None


def _keep_events(clips: "Manifest", done: "Extraction", prepared: "Prepared | None") -> None:
    """Write the events beside the manifest that extraction made, where it made one."""
    from featcache.manifest import load_manifest
    from featcache.manifest.events import events_file, read_events, write_events_beside
    from featcache.manifest.windows import events_in_windows
    from featcache.records import WINDOWS

    if done.manifest.parent != done.cache:  # it is the manifest given, and its events lie beside it
        return
    beside = events_file(clips.path)
    if prepared:
        events = list(prepared.events)
    else:
        events = [event for own in read_events(beside).values() for event in own] if beside.is_file() else []
    if done.manifest.name == WINDOWS:
        events = events_in_windows(events, clips, load_manifest(done.manifest))
    write_events_beside(done.manifest, events)
