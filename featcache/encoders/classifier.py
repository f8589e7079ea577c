"""The head of a fine-tuned checkpoint: its authors' clip vector and logits, to see that it works."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

from featcache.encoders.base import Encoded
from featcache.errors import InputError
from featcache.weights.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Pooled tokens through a norm, if there is one, and one linear layer.

    Tensors and no modules: what only scores clips is no part of the digest of what makes tokens.
    """

    weight: Tensor  # (C, D)
    bias: Tensor  # (C,)
    pool: Callable[[Encoded, int], Tensor]  # what the encoder gives for a layer, to (B, D)
    norm: tuple[Tensor, Tensor] | None = None  # gain and offset (D,)
    eps: float = 1e-6
    names: tuple[str, ...] = ()  # of the classes, where the checkpoint holds them

    def __call__(self, pooled: Tensor) -> Tensor:
        """Pooled (B, D) to logits (B, C)."""
        if self.norm is not None:
            gain, offset = (value.to(pooled) for value in self.norm)
            pooled = layer_norm(pooled, pooled.shape[-1:], gain, offset, self.eps)
        return linear(pooled, self.weight.to(pooled), self.bias.to(pooled))


def mean_of_tokens(encoded: Encoded, layer: int) -> Tensor:
    """(B, D): padding counts, as the authors of AudioMAE have it; the other encoders here have none."""
    return encoded.tokens[layer].mean(1)


def cls_token(encoded: Encoded, layer: int) -> Tensor:
    """(B, D)"""
    assert encoded.cls is not None
    return encoded.cls[layer]


def read_classifier(
    checkpoint: Checkpoint,
    head: str,
    pool: Callable[[Encoded, int], Tensor],
    *,
    norm: str | None = None,
    eps: float = 1e-6,
    names: Sequence[str] = (),
) -> Classifier | None:
    """The head that a checkpoint holds under these names, or None: it is pre-trained, or its head is another.

    Args:
        head: prefix of weight and bias of the linear layer
        norm: prefix of the norm before it
    """
    state = {key: value.float() for key, value in checkpoint.state.items() if value.is_floating_point()}
    wanted = [f"{head}.weight", f"{head}.bias"] + ([f"{norm}.weight", f"{norm}.bias"] if norm else [])
    if any(key not in state for key in wanted):
        return None
    weight, bias, *gains = (state[key] for key in wanted)
    return Classifier(
        weight=weight, bias=bias, pool=pool, norm=(gains[0], gains[1]) if gains else None, eps=eps,
        names=tuple(names),
    )  # fmt: skip


class Classifies(nn.Module):
    """What encoders share whose authors published fine-tuned heads."""

    classifier: Classifier | None = None

    def logits(self, waveforms: Sequence[Tensor]) -> Tensor:
        """What the checkpoint's own head says of each clip.

        Shape:
            - waveforms: (L_i,) each, at the encoder's rate, on its device
            - output: (B, C)

        Raises:
            InputError: the checkpoint is not fine-tuned.
        """
        return self._head()(self.clip_vectors(waveforms))

    def clip_vectors(self, waveforms: Sequence[Tensor]) -> Tensor:
        """What the head reads, before its norm: (B, D).

        Raises:
            InputError: the checkpoint is not fine-tuned.
        """
        encoder: Any = self
        head, depth = self._head(), encoder.depth
        with torch.inference_mode():  # one by one: lengths differ
            encoded = [encoder(torch.stack(encoder.frontend([waveform])), [depth]) for waveform in waveforms]
            return torch.cat([head.pool(each, depth) for each in encoded])

    def _head(self) -> Classifier:
        if self.classifier is None:
            raise InputError(
                "these weights hold no classifier, so they are pre-trained ones; give a fine-tuned "
                "checkpoint for logits"
            )
        return self.classifier
