"""Stage two: tokens to logits. ``HEADS`` is the table of heads, ``build_head`` builds one of them."""

from featcache.heads.attentive import Abmilp, Attentive, EfficientProbing, SimPool
from featcache.heads.base import Head, HeadSpec
from featcache.heads.gated import AttentiveLayers, Gated
from featcache.heads.linear import Linear, Mlp
from featcache.heads.pooling import Conv, LinearC, LinPre, MeanMax, TfMean
from featcache.heads.prototypical import Proto, ProtoBin, ProtoFloat
from featcache.heads.saving import load, load_config, save
from featcache.heads.table import HEADS, build_head, head_spec

__all__ = [
    "HEADS",
    "Abmilp",
    "Attentive",
    "AttentiveLayers",
    "Conv",
    "EfficientProbing",
    "Gated",
    "Head",
    "HeadSpec",
    "LinPre",
    "Linear",
    "LinearC",
    "MeanMax",
    "Mlp",
    "Proto",
    "ProtoBin",
    "ProtoFloat",
    "SimPool",
    "TfMean",
    "build_head",
    "head_spec",
    "load",
    "load_config",
    "save",
]
