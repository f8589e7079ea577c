"""Stage two: tokens to logits, and everything that trains, tests and compares what does so.

The heads themselves are here, one file a family:

- ``base``, ``pooled``: what every head promises, and the shape that most share
- ``standardize``: channels of tokens at zero mean and unit spread, before any head
- ``linear``, ``pooling``, ``tokenwise``, ``attentive``, ``simpool``, ``abmilp``, ``prototypical``,
  ``layerwise``, ``gated``: the heads
- ``binarize``, ``framewise``: parts of prototypical heads
- ``registry``, ``users``, ``options``: the table ``HEADS``, and from a name to a head, a user's too
- ``checkpoint``, ``fold``, ``head_file``, ``export``: trained heads to and from disk, and to ONNX

and around them:

- ``matching``: for each prototype, the token that is most like it
- ``data``: from a cache and labels to batches
- ``training``: many heads trained side by side
- ``solved``: heads that are solved in closed form or to convergence: reference points that need no luck
- ``probing``: ``probe``: search, train, test, record
- ``report``: results compared, in tables and pictures
- ``campaign``: a study as a file: encoders x data sets x heads to one table
- ``predicting``: a trained head on new sound
- ``explain``: what a head found where
- ``testing``: does a head keep its contract?
"""

from typing import TYPE_CHECKING

from featcache.lazy import lazy

_HOMES = {
    "abmilp": ("Abmilp",),
    "attentive": ("Attentive", "EfficientProbing"),
    "base": ("Head", "HeadSpec"),
    "checkpoint": ("load", "load_config", "save"),
    "export": ("export_onnx",),
    "gated": ("Gated",),
    "layerwise": ("AttentiveLayers",),
    "linear": ("Linear", "Mlp"),
    "matching": ("match", "match_reference"),
    "pooled": ("PooledHead",),
    "pooling": ("LinearC", "MeanMax", "TfMean"),
    "probing.presets": ("PRESETS",),
    "probing.probe": ("probe",),
    "prototypical": ("Proto", "ProtoBin", "ProtoFloat"),
    "registry": ("HEADS", "build_head", "head_spec", "register_head"),
    "report.compare": ("compare",),
    "report.results": ("Result", "read_results"),
    "simpool": ("SimPool",),
    "tokenwise": ("Conv", "LinPre"),
}
__getattr__, __dir__ = lazy(
    __name__, {name: f"featcache.heads.{home}" for home, names in _HOMES.items() for name in names}
)

__all__ = [
    "HEADS",
    "PRESETS",
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
    "PooledHead",
    "Proto",
    "ProtoBin",
    "ProtoFloat",
    "Result",
    "SimPool",
    "TfMean",
    "build_head",
    "compare",
    "export_onnx",
    "head_spec",
    "load",
    "load_config",
    "match",
    "match_reference",
    "probe",
    "read_results",
    "register_head",
    "save",
]

if TYPE_CHECKING:
    from featcache.heads.abmilp import Abmilp
    from featcache.heads.attentive import Attentive, EfficientProbing
    from featcache.heads.base import Head, HeadSpec
    from featcache.heads.checkpoint import load, load_config, save
    from featcache.heads.export import export_onnx
    from featcache.heads.gated import Gated
    from featcache.heads.layerwise import AttentiveLayers
    from featcache.heads.linear import Linear, Mlp
    from featcache.heads.matching import match, match_reference
    from featcache.heads.pooled import PooledHead
    from featcache.heads.pooling import LinearC, MeanMax, TfMean
    from featcache.heads.probing.presets import PRESETS
    from featcache.heads.probing.probe import probe
    from featcache.heads.prototypical import Proto, ProtoBin, ProtoFloat
    from featcache.heads.registry import HEADS, build_head, head_spec, register_head
    from featcache.heads.report.compare import compare
    from featcache.heads.report.results import Result, read_results
    from featcache.heads.simpool import SimPool
    from featcache.heads.tokenwise import Conv, LinPre
