"""The table of encoders: one line each."""

from featcache.encoders.audiomae import AUDIOMAE
from featcache.encoders.base import EncoderSpec
from featcache.encoders.logmel import LOGMEL

_SPECS = (
    AUDIOMAE,
    LOGMEL,
)

ENCODERS: dict[str, EncoderSpec] = {spec.name: spec for spec in _SPECS}
