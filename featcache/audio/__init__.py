"""From audio files to spectrograms.

- ``load``: one segment of one file as a mono waveform at a given rate
- ``opening``: files whose headers can be believed
- ``recording``: a file that stays open for many segments
- ``container``: whether a file is all there
- ``mixup``: clips laid over a clip
- ``resample``: one rate to another, in bounded memory
- ``decode_ahead``: many of them, in order, on threads
- ``decode_process``: decoding in processes, which can be stopped
- ``fbank``: Kaldi's log-mel filter bank
- ``fbank_pass``: the same in C, in blocks of frames that stay in cache
- ``melspec``: mel spectrograms in decibels (Dasheng's input)
- ``blocks``: waveforms in blocks that share a batch
"""

from typing import TYPE_CHECKING

from featcache.lazy import lazy

__all__ = ["KaldiFbank", "MelDecibels", "duration", "load_clip"]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "KaldiFbank": "featcache.audio.fbank",
        "MelDecibels": "featcache.audio.melspec",
        "duration": "featcache.audio.load",
        "load_clip": "featcache.audio.load",
    },
)

if TYPE_CHECKING:
    from featcache.audio.fbank import KaldiFbank
    from featcache.audio.load import duration, load_clip
    from featcache.audio.melspec import MelDecibels
