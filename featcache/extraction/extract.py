"""Stage one: every clip of a manifest through a frozen encoder, once, into a token cache."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from featcache.arguments import check
from featcache.cache import CacheWriter, TokenCache
from featcache.cache.format.durable import writing
from featcache.cache.remote.store import is_url
from featcache.cache.write.recovery import check_target
from featcache.cores import cores
from featcache.devices import choose_device
from featcache.devices import threads as limited
from featcache.encoders import build_encoder
from featcache.encoders.base import Encoder
from featcache.encoders.columns import column_seconds
from featcache.errors import InputError
from featcache.extraction.fill import Filler
from featcache.extraction.fingerprint import layout_of
from featcache.extraction.layers import parse_layers
from featcache.extraction.plan import MEASURED_FROM, Plan, pending_clips, plan_sizes, require_room, with_rates
from featcache.extraction.rates import measure
from featcache.extraction.result import Extraction
from featcache.extraction.rules import RULES
from featcache.extraction.run_record import run_record
from featcache.extraction.runner import Runner
from featcache.extraction.share import share_of
from featcache.extraction.sounds import decoding_threads
from featcache.extraction.stages import Stages
from featcache.extraction.upload import Upload
from featcache.extraction.wanted import opened, wanted_clips
from featcache.home import home
from featcache.manifest import Manifest
from featcache.manifest.variants import Mixup
from featcache.output import keeping, writable, writable_file
from featcache.records import add_run
from featcache.spans import Spans


def extract(
    manifest: Manifest | str | Path,
    *,
    out: str | Path,
    encoder: str | Encoder = "logmel",
    weights: str | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    clip_seconds: float | None = None,
    layers: str | Sequence[int] | None = None,
    device: str = "auto",
    dtype: str = "fp32",
    compiled: bool = False,
    batch_size: int = 32,
    workers: int | None = None,
    threads: int | None = None,
    store_dtype: str = "float16",
    codec: str | None = None,
    shard_clips: int | None = None,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    variants: int | None = None,
    mixup: float = 0.9,
    mixup_snr: Sequence[float] = (2.0, 30.0),
    mixup_sources: int = 3,
    variant_seed: int = 0,
    scratch: str | Path | None = None,
    reuse: str | Path | Sequence[str | Path] = (),
    skip_failed: bool = False,
    accept_truncated: bool = False,
    path_column: str | None = None,
    label_column: str | None = None,
    rehash: bool = False,
    writer: str | None = None,
    takeover: bool = False,
    decode_timeout: float | None = None,
    profile: str | Path | None = None,
    plan_only: bool = False,
    announce: Callable[[Plan], None] | None = None,
    progress: bool = False,
) -> Extraction:
    """Encode the clips of ``manifest`` that ``out`` does not hold yet and store their tokens.

    The same call after a crash or Ctrl-C goes on where it stopped; after more clips were added
    to the manifest it encodes only those. Clips that cannot be decoded are listed in the result
    and in ``failed.jsonl``, and never stored.

    Args:
        encoder_options: what the encoder takes beyond weights and length, such as ``{"num_heads": 4}``
        layers: which block outputs to keep: ``None`` the last, ``"all"``, ``"1-12"``, ``"6,12"``, or numbers
        compiled: have torch compile the encoder for clips of full length, which takes a
            minute before the first; tokens may differ as between two devices
        clip_seconds: [s] length the encoder is built for; the authors' unless given
        shard_clips: clips per shard file, the most that a kill or a crash loses; about 192 MB unless given
        threads: of torch on the CPU until this returns; torch's number unless given. Decoding has ``workers``
        window_seconds: [s] split longer clips into windows of this length instead of cutting them
        hop_seconds: [s] between window starts; the length of a window unless given
        variants: of each train clip, so many augmented ones are stored beside it; none unless given
        mixup: the probability that a variant has other train clips laid over it, its labels being the union
        mixup_snr: [dB] lowest and highest level of a clip against one that is laid over it
        mixup_sources: the most clips that are laid over one
        variant_seed: of what is drawn for variants
        scratch: a local folder for the shards that this run makes, where ``out`` is an address such as
            ``s3://…``; they leave it when all have arrived. One in featcache's own folder unless given
        reuse: other caches; tokens of the same fingerprint are copied instead of computed
        skip_failed: go on where files are missing, too (decoding failures never stop the run)
        accept_truncated: encode what is there of files that were cut off, instead of listing them as failed
        path_column: of a CSV file, where it is not called path
        label_column: of a CSV file, where it is not called labels
        writer: "r/N" writes every N-th shard alone, beside others that write the rest into the same ``out``;
            "slurm" takes r and N from a task of SLURM's; under torchrun each rank takes its share by itself
        takeover: once its own shards are done, write those of other writers that nobody has begun
        decode_timeout: [s] after which a clip counts as failed; clips are then decoded in processes of their
            own, so that a codec that hangs or dies does not take the run with it
        profile: a file for a trace of all stages, as chrome://tracing and ui.perfetto.dev show it
        plan_only: find out what the run would cost (``plan`` of the result), and encode nothing
        announce: is given the plan before the first clip is encoded, by the first of several writers
        rehash: read every file to see which audio it holds, whatever is remembered of it from earlier runs

    Raises:
        InputError: bad manifest, option, weights, ``out`` holds something else or has no room.
        Interrupted: Ctrl-C; what is encoded is kept.
    """
    began = time.perf_counter()
    check(
        RULES,
        {
            "clip_seconds": clip_seconds, "dtype": dtype, "batch_size": batch_size, "workers": workers,
            "threads": threads, "store_dtype": store_dtype, "codec": codec, "shard_clips": shard_clips,
            "window_seconds": window_seconds, "hop_seconds": hop_seconds, "variants": variants,
            "mixup": mixup, "mixup_snr": mixup_snr, "mixup_sources": mixup_sources,
            "variant_seed": variant_seed, "decode_timeout": decode_timeout,
        },
    )  # fmt: skip
    share = replace(share_of(writer), takeover=takeover)
    workers = workers or decoding_threads(share.beside)
    upload = None
    if is_url(out):
        upload = Upload.to(str(out), scratch or home() / "scratch", alone=share.count == 1)
    cache = upload.path if upload else Path(out)
    check_target(cache)
    writable(cache)
    if profile is not None:
        writable_file(Path(profile))
    if hop_seconds is not None and window_seconds is None:
        raise InputError(
            "hop_seconds says how far windows are apart; give window_seconds too",
            options=("hop_seconds", "window_seconds"),
        )
    manifest = opened(manifest, path_column, label_column, skip_failed)
    model, name = _build(encoder, weights, clip_seconds, encoder_options)
    place = choose_device(share.device if device == "auto" else device)
    runner = Runner(model, device=place, dtype=dtype, layers=parse_layers(layers, model.depth))
    augment = None
    if variants:
        low, high = mixup_snr
        augment = Mixup(
            variants=variants, mixup=mixup, mixup_snr=(low, high), mixup_sources=mixup_sources,
            seed=variant_seed,
        )  # fmt: skip
    wanted = wanted_clips(
        manifest, window_seconds=window_seconds, hop_seconds=hop_seconds, accept_truncated=accept_truncated,
        augment=augment, rehash=rehash, progress=progress,
    )  # fmt: skip
    clips, keys = wanted.clips, wanted.keys
    result = Extraction(
        cache=cache, manifest=manifest.path, clips=len(clips), writer=f"{share.rank}/{share.count}",
        address=upload.address if upload else None,
    )  # fmt: skip
    layout = layout_of(runner, name, store_dtype, codec, shard_clips, augment)
    todo = pending_clips(cache, layout, clips.clips, keys, upload.keys if upload else frozenset())
    plan = plan_sizes(cache, layout, len(todo), len(clips) - len(todo), share.count)
    require_room(plan, cache, layout)
    with limited(threads):
        if compiled and todo:
            plan = replace(plan, compile_seconds=_compile(runner, batch_size, progress))
        if plan_only or (share.rank == 0 and len(todo) >= MEASURED_FROM):
            rates = measure(
                todo, {clip.id: clip for clip in clips}, runner, layout, beside=cache,
                workers=workers, accept_truncated=accept_truncated, timeout=decode_timeout,
                together=batch_size if compiled else 1,
            )  # fmt: skip
            plan = with_rates(plan, rates, shared=place.type == "cpu") if rates else plan
    result.plan = plan
    if plan_only:
        result.complete = False
        return result
    if announce and share.rank == 0:
        announce(plan)
    spans, started = Spans(keep=profile is not None), time.perf_counter()
    with (
        limited(threads),
        upload.running() if upload else nullcontext(),
        CacheWriter.create_or_open(result.cache, layout, alone=share.count == 1) as store,
    ):
        result.manifest = wanted.write(result.cache)
        if share.rank == 0:  # several do not append to one file
            with writing(result.cache):
                add_run(
                    result.cache, run_record(result.manifest, manifest.title, runner, batch_size, compiled)
                )
        store.annotate(column_seconds=column_seconds(model))
        filler = Filler(
            store, runner, result, batch_size=batch_size, workers=workers, share=share,
            accept_truncated=accept_truncated, timeout=decode_timeout, spans=spans,
            progress=progress and not share.local,  # one bar a machine
        )  # fmt: skip
        if upload:
            store.elsewhere = upload.shards
            store.failed.update(upload.failed)
        others = [reuse] if isinstance(reuse, str | Path) else reuse
        split = {clip.id for clip in manifest} - {clip.id for clip in clips}
        filler.fill(
            clips.clips, keys, [TokenCache.open(other, checked=True) for other in others], split=split,
            elsewhere=upload.keys if upload else frozenset(),
        )  # fmt: skip
        result.lost = store.lost
        store.close(complete=result.complete or share.count == 1)
    if result.encoded:
        result.stages = Stages(
            seconds=dict(spans.seconds), wall=time.perf_counter() - started, cores=cores(share.beside),
            workers=workers, device=place.type, store_dtype=store_dtype,
            compute_dtype=str(runner.dtype).removeprefix("torch."),
        )  # fmt: skip
    if profile is not None:
        with keeping(Path(profile), "the tokens are stored"):
            spans.write(Path(profile))
    result.num_bytes = _bytes_on_disk(result.cache)
    result.seconds = time.perf_counter() - began
    if upload:
        upload.clear()
    return result


def _compile(runner: Runner, batch_size: int, progress: bool) -> float:
    """[s] that it took."""
    hidden = None if progress else True
    with tqdm(desc="compiling the encoder", bar_format="{desc}, {elapsed}", leave=False, disable=hidden):
        return runner.compile(batch_size)


def _bytes_on_disk(cache: Path) -> int:
    total = 0
    for file in cache.rglob("*"):
        with suppress(FileNotFoundError):  # another writer's temporary file may just have got its name
            total += file.stat().st_size if file.is_file() else 0
    return total


def _build(
    encoder: str | Encoder,
    weights: str | None,
    clip_seconds: float | None,
    options: Mapping[str, Any] | None,
) -> tuple[Encoder, str]:
    if isinstance(encoder, str):
        return build_encoder(encoder, weights, clip_seconds, options), _name(encoder)
    return encoder, f"custom:{type(encoder).__name__}"


def _name(encoder: str) -> str:
    """An encoder's name without the path to a user's file or folder: that is no part of what it computes."""
    if ".py:" in encoder:
        return "custom:" + encoder.rsplit(":", 1)[1]
    folder = Path(encoder.removeprefix("hf:")).expanduser()
    return f"hf:{folder.resolve().name}" if encoder.startswith("hf:") and folder.is_dir() else encoder
