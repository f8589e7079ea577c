"""Frozen encoders: one file an architecture, and the table ``ENCODERS``.

- ``base``: what every encoder promises
- ``table``, ``registry``: the table, and from a name to an encoder
- ``audiomae``, ``birdmae``, ``asit``: ViTs that timm expresses (``vit``); ``timm_vit``: any other of timm
- ``beats``, ``beats_encoder``: BEATs and OpenBEATs
- ``eat``: EAT and SSLAM; ``ast``; ``logmel``: the spectrogram itself
- ``dasheng``, ``atst_frame``, ``m2d``, ``passt``: mel spectrograms of the clip's own length (``mel_encoder``)
- ``hf``, ``hf_load``, ``hf_families``, ``hf_lengths``: any audio encoder of transformers
- ``attention``, ``options``: how many heads a checkpoint has; what an encoder takes beyond weights and length
- ``patches``, ``positions``, ``blocks``: padded patches, position tables, outputs of blocks
- ``columns``: how far the columns of a token map are apart in time
- ``classifier``, ``tried``: heads of fine-tuned checkpoints; one file through one encoder
- ``testing``: the contract of an encoder as a check
"""

from featcache.encoders.base import Encoded, Encoder, EncoderSpec
from featcache.encoders.registry import build_encoder, encoder_names, encoder_spec
from featcache.encoders.table import ENCODERS

__all__ = ["ENCODERS", "Encoded", "Encoder", "EncoderSpec", "build_encoder", "encoder_names", "encoder_spec"]
