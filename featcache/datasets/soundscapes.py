"""Multi-label soundscapes with known event times, composed from single recordings.

Where in time a probe found a class can only be judged if the truth is known; composed soundscapes
have that truth, and are the same bytes for the same seed.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from featcache.audio.load import load_clip
from featcache.cache.format.durable import replace_file
from featcache.datasets.mixing import Decode, Recipe, Wave, bed, lay_events
from featcache.datasets.sources import BACKGROUND, Recording, by_class
from featcache.errors import InputError
from featcache.manifest import SPLITS
from featcache.manifest.events import events_file, write_events


def compose(
    recordings: Sequence[Recording],
    out: str | Path,
    *,
    counts: Mapping[str, int],
    recipe: Recipe | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> Path:
    """Write soundscapes, their manifest and their events; each split is made of its own recordings.

    A soundscape depends on the recipe, its split and its number, not on how many others there are.

    Args:
        counts: soundscapes per split, such as ``{"train": 240, "valid": 60, "test": 100}``
        progress: called with 1 after each soundscape

    Returns:
        The path of ``manifest.csv``; ``manifest.events.csv`` and ``audio/*.wav`` (16 bit) lie beside it.

    Raises:
        InputError: a split that is asked for lacks recordings of a class, or there are too few classes.
        AudioError: a recording cannot be decoded.
    """
    out, recipe = Path(out), recipe or Recipe()
    (out / "audio").mkdir(parents=True, exist_ok=True)
    decode = _decoder(recipe.sample_rate)
    rows, events = [], []
    for split in (split for split in SPLITS if counts.get(split)):
        classes = by_class(recordings, split)
        backgrounds = classes.pop(BACKGROUND, [])
        _check(classes, recipe)
        for number in range(counts[split]):
            clip = f"{split}-{number:04d}"
            rng = np.random.default_rng([recipe.seed, SPLITS.index(split), number])
            laid, found = lay_events(rng, clip, classes, recipe, decode)
            mix = bed(rng, backgrounds, recipe, decode) + laid
            _write_wave(out / f"audio/{clip}.wav", mix, recipe.sample_rate)
            rows.append((f"audio/{clip}.wav", ";".join(sorted(event.label for event in found)), clip, split))
            events += found
            progress(1)
    manifest = out / "manifest.csv"
    write_events(events_file(manifest), events)
    return _write_table(manifest, ("path", "labels", "id", "split"), rows)


def _decoder(sample_rate: int) -> Decode:
    @cache
    def decode(path: Path) -> Wave:
        wave: Wave = load_clip(path, sample_rate=sample_rate).waveform.numpy().astype(np.float64)
        return wave

    return decode


def _check(classes: Mapping[str, Sequence[Path]], recipe: Recipe) -> None:
    if len(classes) < recipe.max_events:
        raise InputError(
            f"{recipe.max_events} events of different classes wanted, {len(classes)} classes found;"
            " lower max_events or add classes"
        )


def _write_wave(path: Path, wave: Wave, sample_rate: int) -> None:
    # Scaling the whole clip leaves every SNR as it was; clipping would not.
    content = io.BytesIO()
    soundfile.write(content, wave / max(1.0, np.abs(wave).max()), sample_rate, format="WAV", subtype="PCM_16")
    replace_file(path, content.getvalue(), durable=False)


def _write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> Path:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    replace_file(path, text.getvalue().encode(), durable=False)  # whole or not there: a demo goes by it
    return path
