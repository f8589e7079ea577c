"""How far the columns of a token map are apart in time."""

from bisect import bisect_left

from featcache.encoders.base import Encoder
from featcache.errors import AudioError


def column_seconds(encoder: Encoder) -> float:
    """[s] between token columns, by the encoder's own rule of how many columns a sound has.

    Where that tells nothing (padding counts as sound, or columns are few), a clip's length is shared out.

    >>> from featcache.encoders import build_encoder
    >>> column_seconds(build_encoder("logmel", clip_seconds=5))
    0.16
    """
    F, T = encoder.grid
    longest = round(encoder.clip_seconds * encoder.sample_rate)

    def columns(samples: int) -> int:
        try:
            return encoder.valid_tokens(samples) // F
        except AudioError:
            return 0

    last = columns(longest)
    if columns(longest // 2) == last or last < 4:
        return encoder.clip_seconds / T
    # Not the first and the last: what lies beyond a window's edge counts differently.
    begin, end = (bisect_left(range(longest), count, key=columns) for count in (2, last - 1))
    return (end - begin) / (last - 3) / encoder.sample_rate
