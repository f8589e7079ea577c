"""The contract of a head as a check that tells its author what is wrong.

- ``check``: ``check_head``
- ``case``: a head under test, and the made-up clips that it meets
- ``declared``, ``answers``, ``learning``, ``side_by_side``: the checks, in the order in which they are run
"""

from featcache.heads.testing.check import check_head

__all__ = ["check_head"]
