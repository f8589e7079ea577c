"""What numbers and names the options of an extraction may have."""

from collections.abc import Sequence

from featcache.arguments import CLIP_SECONDS, Rule, count_up_to, seconds_from
from featcache.cache.format.codecs import CODECS
from featcache.cache.format.dtypes import STORE_DTYPES
from featcache.cache.format.layout import MOST_SHARD_CLIPS
from featcache.extraction.runner import COMPUTE_DTYPES
from featcache.manifest.variants import RULES as MIXUP

WINDOW_SECONDS = seconds_from(0.001, 86_400)
RULES: dict[str, Rule | Sequence[str]] = {
    "clip_seconds": CLIP_SECONDS,
    "dtype": tuple(COMPUTE_DTYPES),
    "batch_size": count_up_to(10_000),
    "workers": count_up_to(256),
    "threads": count_up_to(1024),
    "store_dtype": tuple(STORE_DTYPES),
    "codec": tuple(CODECS),
    "decode_timeout": WINDOW_SECONDS,
    "shard_clips": count_up_to(MOST_SHARD_CLIPS),
    "window_seconds": WINDOW_SECONDS,
    "hop_seconds": WINDOW_SECONDS,
    **MIXUP,
}
