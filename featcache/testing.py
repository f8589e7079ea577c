"""For authors: does your encoder, does your head keep its contract?

Like ``featcache`` itself, this is a public face of all three packages: ``check_head`` is stage two's. The
names are imported when first used, so that stage one goes without stage two.
"""

from typing import TYPE_CHECKING

from featcache.lazy import lazy

__all__ = ["check_encoder", "check_head"]

_HOMES = {"check_encoder": "featcache.encoders.testing", "check_head": "featcache.heads.testing"}
__getattr__, __dir__ = lazy(__name__, _HOMES)

if TYPE_CHECKING:
    from featcache.encoders.testing import check_encoder
    from featcache.heads.testing import check_head
