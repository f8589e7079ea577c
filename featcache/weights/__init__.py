"""Checkpoints: found or fetched, read without running code, checked key by key.

- ``checkpoint``: every published container as one state dict, and into a module
- ``known``: published checkpoints
- ``download``: local paths, the Hugging Face Hub, URLs
"""

from featcache.weights.checkpoint import Checkpoint, load_checkpoint, load_into, weights_digest
from featcache.weights.download import locate

__all__ = ["Checkpoint", "load_checkpoint", "load_into", "locate", "weights_digest"]
