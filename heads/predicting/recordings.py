"""Which audio is scored, in which windows, and its logits in order."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from featcache.audio.decode_ahead import decode_ahead
from featcache.cores import cores
from featcache.encoders.base import decode_seconds
from featcache.errors import AudioError, InputError, MissingError
from featcache.extraction.batcher import Batcher, ClipTokens
from featcache.heads.predicting.predictor import Predictor
from featcache.manifest import Clip, Manifest, load_manifest
from featcache.manifest.files import FOLDER, file_problem, printable
from featcache.manifest.folders import AUDIO_SUFFIXES
from featcache.manifest.windows import window_manifest

AHEAD = 8  # batches of results that wait for one before them


class Scored(NamedTuple):
    """One window of a recording, or one clip of a manifest."""

    id: str
    file: str
    start: float  # [s] in the file
    end: float  # [s] in the file
    logits: NDArray[np.float32]  # (C,)
    frames: NDArray[np.float32] | None = None  # (T, C), where asked for


def recordings(sources: Sequence[str | Path]) -> Manifest:
    """Files, folders with all audio below them, and manifests (``.csv``), as the clips of one manifest,
    those of one file together.

    Raises:
        MissingError: there is no such file or folder.
        InputError: no audio is among them, or the same file twice.
    """
    clips: dict[str, Clip] = {}
    for source in map(Path, sources):
        for clip in _clips(source):
            if clip.id in clips:
                raise InputError(f"{clip.id} is given twice; leave one out")
            clips[clip.id] = clip
    if not clips:
        raise InputError("no audio to predict on; give files, folders or manifests", options=("audio",))
    order = {path: number for number, path in enumerate(dict.fromkeys(clip.path for clip in clips.values()))}
    return Manifest(tuple(sorted(clips.values(), key=lambda clip: order[clip.path])), Path(sources[0]))


def _clips(source: Path) -> list[Clip]:
    problem = file_problem(source)
    if problem == FOLDER:
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
        if not files:
            raise InputError(f"no audio file in {printable(source)} or in a folder below it")
        return [Clip(id=printable(file), path=file) for file in files]
    if not source.exists():
        raise MissingError(f"no file or folder at {printable(source)}")
    if source.suffix == ".csv":
        return list(load_manifest(source).clips)
    return [Clip(id=printable(source), path=source)]


def score(
    predictor: Predictor,
    manifest: Manifest,
    *,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    frames: bool = False,
    batch_size: int = 32,
    workers: int | None = None,
    failed: dict[str, str],
    progress: bool = False,
) -> Iterator[Scored]:
    """The logits of every window, in order; memory holds a few batches, however long a recording is.

    Args:
        window_seconds: [s] of a window; the length of the clips that the head was trained on
        hop_seconds: [s] between window starts; the length of a window
        frames: logits over time, too
        failed: takes id -> reason of clips that cannot be decoded

    Raises:
        InputError: a window is longer than the encoder's clips, or the head has no scores over time.
    """
    encoder = predictor.runner.encoder
    length = window_seconds or encoder.clip_seconds
    if length > encoder.clip_seconds:
        raise InputError(
            f"windows of {length:g} s are longer than the {encoder.clip_seconds:g} s that the head was "
            "trained on; take shorter ones",
            options=("window_seconds",),
        )
    clips = window_manifest(manifest, length, hop_seconds).clips
    done: dict[int, Scored | None] = {}
    places: dict[int, tuple[Clip, float]] = {}

    def keep(index: int, tokens: ClipTokens) -> None:
        clip, end = places.pop(index)
        over_time = predictor.frames(tokens).numpy() if frames else None
        logits = predictor.of_tokens(tokens).numpy()
        done[index] = Scored(clip.id, printable(clip.path), clip.start, end, logits, over_time)

    batcher: Batcher[int] = Batcher(predictor.runner, batch_size, keep)
    sounds = decode_ahead(
        clips, sample_rate=encoder.sample_rate, max_seconds=decode_seconds(encoder),
        workers=workers or min(8, cores()), ahead=2 * batch_size,
    )  # fmt: skip
    following = 0
    with tqdm(total=len(clips), unit="window", desc="predict", disable=None if progress else True) as bar:
        for index, (clip, sound) in enumerate(sounds):
            bar.update()
            try:
                if isinstance(sound, AudioError):
                    raise sound
                encoder.valid_tokens(len(sound.waveform))
            except AudioError as error:
                failed[clip.id], done[index] = str(error), None
            else:
                places[index] = clip, clip.start + len(sound.waveform) / encoder.sample_rate
                batcher.push(index, sound.waveform)
            while following in done:
                if found := done.pop(following):
                    yield found
                following += 1
            if len(done) > AHEAD * batch_size:  # a clip of a rare length holds up the others
                batcher.flush()
        batcher.flush()
    yield from (found for _, found in sorted(done.items()) if found)
