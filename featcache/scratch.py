"""Host memory that is used again: fresh pages cost more than the copy or the arithmetic that fills them."""

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Scratch:
    """Buffers by name. What was taken under a name before is overwritten.

    On accelerators every buffer is new: their allocators use memory again themselves.
    """

    def __init__(self) -> None:
        self._held: dict[object, Tensor] = {}

    def take(
        self,
        name: object,
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        *,
        zeroed: bool = False,
    ) -> Tensor:
        """Memory of this shape.

        Args:
            zeroed: zeros when it is new; what the caller leaves alone stays zero as long as only the
                first axis changes
        """
        make = torch.zeros if zeroed else torch.empty
        if torch.device(device).type != "cpu":
            return make(*shape, dtype=dtype, device=device)
        count = math.prod(shape)
        held = self._held.get(name)
        if held is None or held.numel() < count or held.dtype != dtype:
            held = self._held[name] = make(count, dtype=dtype)
        return held[:count].view(*shape)


def keep_freed_memory() -> None:
    """Have the C library keep the memory that is freed, for what is asked for next.

    glibc gives large blocks back to the system at once and gets them again page by page, which can take a
    quarter of a training step. Nothing happens elsewhere.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return
    mmap_max, trim_threshold = -4, -1  # as malloc.h numbers them
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, -1)
