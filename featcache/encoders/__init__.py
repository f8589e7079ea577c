"""One file per encoder architecture, and the table ENCODERS."""

from featcache.encoders.base import Encoded, Encoder, EncoderSpec
from featcache.encoders.registry import build_encoder, encoder_names, encoder_spec
from featcache.encoders.table import ENCODERS

__all__ = ["ENCODERS", "Encoded", "Encoder", "EncoderSpec", "build_encoder", "encoder_names", "encoder_spec"]
