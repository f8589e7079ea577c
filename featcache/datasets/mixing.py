"""The arithmetic of a soundscape: a bed of background and noise, and events laid on it at a set level."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.manifest.events import Event

Wave = NDArray[np.float64]
Decode = Callable[[Path], Wave]  # a recording, mono, at the recipe's rate

BED_RMS = 0.02  # of full scale, -34 dBFS: room for events above it
ACTIVE_DB = -40.0  # an event lasts while it is above this, against its own peak
FADE_SECONDS = 0.01  # at the ends of an event that was cut out of a longer recording
CROSSFADE_SECONDS = 0.5  # where a background is repeated: a seam must not sound like an event


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What all soundscapes of a set have in common."""

    seconds: float = 5.0  # [s] of a soundscape
    sample_rate: int = 16_000  # [Hz]
    max_events: int = 3  # one to this many, each of another class
    event_seconds: float = 2.0  # [s] of longer recordings a random part of this length is taken
    snr_db: tuple[float, float] = (
        0.0,
        20.0,
    )  # [dB] event against bed, both over the event's length on average
    noise_db: tuple[float, float] = (-30.0, -10.0)  # [dB] pink noise against the background recording
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class LaidEvent(Event):
    """One sound in a soundscape, and what it was made of."""

    snr_db: float
    recording: str  # file name


def bed(rng: np.random.Generator, backgrounds: Sequence[Path], recipe: Recipe, decode: Decode) -> Wave:
    """A random background recording over pink noise, or the noise alone; RMS is ``BED_RMS``."""
    count = round(recipe.seconds * recipe.sample_rate)
    noise = _pink(rng, count)
    if not backgrounds:
        return BED_RMS * noise
    recording = decode(backgrounds[int(rng.integers(len(backgrounds)))])
    background = _lengthen(rng, recording, count, round(CROSSFADE_SECONDS * recipe.sample_rate))
    mixed = background / _rms(background) + 10 ** (rng.uniform(*recipe.noise_db) / 20) * noise
    return BED_RMS * mixed / _rms(mixed)


def lay_events(
    rng: np.random.Generator, clip: str, classes: dict[str, list[Path]], recipe: Recipe, decode: Decode
) -> tuple[Wave, list[LaidEvent]]:
    """One to ``max_events`` events at random onsets, on silence.

    Returns:
        The waveform, exactly zero where no event is, and its events by start.
    """
    wave = np.zeros(round(recipe.seconds * recipe.sample_rate))
    labels = rng.permutation(sorted(classes))[: rng.integers(1, recipe.max_events + 1)]
    events = []
    for label in map(str, labels):
        path = classes[label][int(rng.integers(len(classes[label])))]
        sound = _part(rng, active(decode(path)), recipe)
        first = int(rng.integers(len(wave) - len(sound) + 1))
        snr = float(rng.uniform(*recipe.snr_db))
        wave[first : first + len(sound)] += BED_RMS * 10 ** (snr / 20) * sound / _rms(sound)
        onset, offset = first / recipe.sample_rate, (first + len(sound)) / recipe.sample_rate
        events.append(
            LaidEvent(id=clip, label=label, start=onset, end=offset, snr_db=snr, recording=path.name)
        )
    return wave, sorted(events, key=lambda event: event.start)


def active(sound: Wave) -> Wave:
    """The sound without the near-silence before and after it.

    >>> active(np.array([0.0, 0.001, 1.0, 0.0, 0.5, 0.0]))
    array([1. , 0. , 0.5])
    """
    size = np.abs(sound)
    loud = np.flatnonzero(size > size.max() * 10 ** (ACTIVE_DB / 20))
    return sound[loud[0] : loud[-1] + 1]


def _part(rng: np.random.Generator, sound: Wave, recipe: Recipe) -> Wave:
    limit = round(min(recipe.event_seconds, recipe.seconds) * recipe.sample_rate)
    if len(sound) <= limit:
        return sound
    first = int(rng.integers(len(sound) - limit + 1))
    part = sound[first : first + limit].copy()
    fade = round(FADE_SECONDS * recipe.sample_rate)
    part[:fade] *= np.linspace(0, 1, fade)
    part[-fade:] *= np.linspace(1, 0, fade)
    return active(part)


def _lengthen(rng: np.random.Generator, sound: Wave, count: int, fade: int) -> Wave:
    """A random part of ``count`` samples of the sound, repeated with crossfades where it is too short."""
    if len(sound) < count:
        fade = min(fade, len(sound) // 3)
        ramp = np.sin(np.linspace(0, np.pi / 2, fade))
        faded = sound.copy()
        faded[:fade] *= ramp
        faded[-fade:] *= ramp[::-1]
        hop = len(sound) - fade
        starts = range(0, count + 2 * len(sound), hop)
        chain = np.zeros(starts[-1] + len(sound))
        for start in starts:
            chain[start : start + len(sound)] += faded
        sound = chain[fade:-fade]  # its ends fade in and out
    first = int(rng.integers(len(sound) - count + 1))
    return sound[first : first + count]


def _pink(rng: np.random.Generator, count: int) -> Wave:
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0.0
    wave = np.fft.irfft(spectrum, count)
    return wave / _rms(wave)


def _rms(wave: Wave) -> float:
    return float(np.sqrt(np.mean(wave**2)))
