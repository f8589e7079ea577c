"""Which option would make an extraction faster."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featcache.extraction.stages import Stages


def advice(stages: "Stages") -> str:
    """What would help, by what bounded the run."""
    if stages.bound == "decode":
        if stages.workers < stages.cores:
            return f"--workers {stages.cores} (now {stages.workers})"
        return "more cores or machines (--writer r/N), or audio stored at the encoder's rate"
    if stages.bound == "write":
        if stages.store_dtype in ("float32", "float16", "bfloat16"):
            return f"--store-dtype int8 instead of {stages.store_dtype}, fewer --layers, or a faster disk"
        return "fewer --layers, or a faster disk"
    if stages.bound == "store":
        return "several processes (--writer r/N or torchrun), or fewer --layers"
    if stages.device == "cpu":
        return "a GPU (--device cuda), or more machines (--writer r/N)"
    if stages.compute_dtype == "float32":
        return "--dtype bf16 (other tokens than fp32), or more GPUs (torchrun)"
    return "--compile, a larger --batch-size, or more GPUs (torchrun)"
