"""The prototype match: for each clip and prototype, the token of the clip that is most like it.

- ``match``: the entry; which form runs, and gradients (of heads with their own: ``gather_winners``)
- ``native``: in C (``csrc/``), compiled when first needed, for CPUs with AVX2
- ``blocks``: in torch operations, a block of similarities at a time, anywhere
- ``cuda``, ``kernels``: on CUDA, in Triton
"""

from featcache.heads.matching.match import ENGINES, gather_winners, is_plain, match, match_reference

__all__ = ["ENGINES", "gather_winners", "is_plain", "match", "match_reference"]
