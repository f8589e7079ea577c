"""How many attention heads a checkpoint has: the shapes of its tensors do not tell."""

from collections.abc import Mapping
from typing import Any

from featcache.errors import InputError, MismatchError
from featcache.weights.checkpoint import Checkpoint

# Of every published checkpoint of these widths: 64 wide each, 80 in the huge one.
PUBLISHED = {384: 6, 768: 12, 1024: 16, 1280: 16, 1536: 24}
_KEYS = ("num_heads", "num_attention_heads", "encoder_attention_heads")
_OPTION = ("encoder_options",)


def heads_of(checkpoint: Checkpoint, dim: int, num_heads: int | None = None) -> int:
    """Heads as the checkpoint's own configuration states them, as asked for, or as published for its width.

    A wrong number loads and gives wrong tokens, so none is guessed.

    Raises:
        MismatchError: the configuration states another number than was asked for.
        InputError: neither says it and no checkpoint of this width is published; or it does not divide it.

    >>> heads_of(Checkpoint(state={}, source="x"), 768)
    12
    """
    stated = stated_heads(checkpoint.config)
    if stated is not None and num_heads not in (None, stated):
        raise MismatchError(
            f"{checkpoint.source} states {stated} attention heads in its configuration, not "
            f"num_heads={num_heads}; leave the option out",
            options=_OPTION,
        )
    heads = stated or num_heads or PUBLISHED.get(dim)
    if heads is None:
        raise InputError(
            f"{checkpoint.source} is {dim} wide, a size that was not published, and does not say how many "
            "attention heads it has; give num_heads",
            options=_OPTION,
        )
    if dim % heads:
        raise InputError(
            f"{checkpoint.source} is {dim} wide, which {heads} attention heads do not divide; "
            "give its num_heads",
            options=_OPTION,
        )
    return heads


def stated_heads(config: Mapping[str, Any]) -> int | None:
    """What a configuration says, at its top or under ``model`` as fairseq keeps it.

    >>> stated_heads({"model": {"num_heads": 4}})
    4
    """
    inner = config.get("model")
    for level in (config, inner if isinstance(inner, Mapping) else {}):
        for key in _KEYS:
            if isinstance(level.get(key), int):
                return int(level[key])
    return None
