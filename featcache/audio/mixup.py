"""Clips laid over a clip, at a set level: what an augmented variant sounds like."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from featcache.audio.load import Decoded, load_clip
from featcache.audio.recording import OpenRecordings
from featcache.errors import AudioError, FeatcacheError
from featcache.manifest import Clip
from featcache.manifest.files import printable
from featcache.manifest.variant import MixedIn

SMALLEST = 1e-8  # added to a level that is divided by: silence stays silence


def lay_over(waveform: Tensor, partner: Tensor, shift: float, snr_db: float) -> Tensor:
    """A waveform with another over it, ``snr_db`` below its own level (root mean square).

    The other is turned round its end by a share of its length, and repeated or cut to the waveform's.
    Nothing is normalized or clipped after.

    Shape:
        - waveform: (L,)
        - partner: (any,)
        - output: (L,)

    Source:
        ``MultilabelMix`` in birdset/datamodule/components/augmentations.py of
        https://github.com/DBD-research-group/BirdSet

    >>> lay_over(torch.ones(4), torch.tensor([1.0, -1.0]), 0.5, 20.0)
    tensor([0.9000, 1.1000, 0.9000, 1.1000])
    """
    turned = torch.roll(partner, round(shift * len(partner)))
    turned = turned.repeat(-(-len(waveform) // len(turned)))[: len(waveform)]
    level = _rms(waveform) / 10 ** (snr_db / 20)
    return waveform + (level / (_rms(turned) + SMALLEST)) * turned


def decode_clip(
    clip: Clip,
    partners: Mapping[str, Clip],
    *,
    sample_rate: int,
    max_seconds: float,
    accept_truncated: bool = False,
    recordings: OpenRecordings | None = None,
) -> Decoded:
    """A clip's waveform; where it is a variant, with its sources over it.

    Args:
        partners: clips by id, those that are laid over others among them
        recordings: where files stay open of which segments are read

    Raises:
        AudioError: as ``load_clip``, also of a source.
    """

    def load(own: Clip) -> Decoded:
        return load_clip(
            own.path, sample_rate=sample_rate, start=own.start, end=own.end, max_seconds=max_seconds,
            accept_truncated=accept_truncated,
            recordings=None if own.end is None and not own.start else recordings,
        )  # fmt: skip

    decoded = load(clip)
    waveform = decoded.waveform
    for source in clip.variant.sources if clip.variant else ():
        waveform = lay_over(waveform, _source(source, partners, load), source.shift, source.snr_db)
    return Decoded(waveform, decoded.cut_seconds)


@contextmanager
def told(clip: Clip) -> Iterator[None]:
    """Let what a decoder raises, of whatever kind, count against this clip alone.

    Raises:
        AudioError: instead.
    """
    try:
        yield
    except FeatcacheError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        raise AudioError(f"{printable(clip.path)}: the decoder failed ({what})") from error


def _source(source: MixedIn, partners: Mapping[str, Clip], load: Callable[[Clip], Decoded]) -> Tensor:
    try:
        return load(partners[source.id]).waveform
    except KeyError:
        raise AudioError(f"is mixed with {source.id!r}, which the manifest does not list") from None
    except AudioError as error:
        raise AudioError(f"is mixed with {source.id!r}: {error}") from None


def _rms(waveform: Tensor) -> float:
    return float(waveform.double().square().mean().sqrt())
