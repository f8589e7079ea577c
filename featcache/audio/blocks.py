"""Waveforms on their way into a spectrogram: long enough, and in blocks."""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from featcache.errors import AudioError

# On a CPU one clip at a time: the frames of 10 s (998 x 512 samples, 2 MB) stay in cache, and a batch
# gives the very bits of each clip alone. A GPU wants many frames at once (65,536: 134 MB).
FRAMES_PER_BLOCK = {"cpu": 1}
_MANY = 65_536


def in_blocks(waveforms: list[Tensor], num_frames: Callable[[int], int]) -> Iterator[list[Tensor]]:
    """Neighbours together as long as the frames of a block, padding included, stay few."""
    block: list[Tensor] = []
    longest = 0
    for waveform in waveforms:
        own = num_frames(len(waveform))
        longest = max(longest, own)
        if block and longest * (len(block) + 1) > FRAMES_PER_BLOCK.get(waveform.device.type, _MANY):
            yield block
            block, longest = [], own
        block.append(waveform)
    if block:
        yield block


def require_samples(found: int, wanted: int, sample_rate: int, what: str) -> None:
    """Raise AudioError if a waveform is shorter than ``what``."""
    if found < wanted:
        raise AudioError(
            f"the clip has {found} samples ({found / sample_rate:.3f} s), fewer than {what} "
            f"({wanted} samples, {wanted / sample_rate:.3f} s at {sample_rate} Hz); leave it out or pad it"
        )


def device_type(waveforms: Sequence[Tensor]) -> str:
    """Where the waveforms are: 'cpu', 'cuda' …"""
    return waveforms[0].device.type if waveforms else "cpu"
