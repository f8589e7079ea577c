"""Stage two: tokens to logits. ``HEADS`` is the table of heads, ``build_head`` builds one of them."""

from featcache.heads.base import Head, HeadSpec
from featcache.heads.saving import load, save
from featcache.heads.table import HEADS, build_head, head_spec

__all__ = ["HEADS", "Head", "HeadSpec", "build_head", "head_spec", "load", "save"]
