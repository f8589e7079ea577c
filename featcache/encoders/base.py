"""What every encoder promises: a spec that is true before any audio is seen, and a module."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Encoded(NamedTuple):
    """Token maps of one batch.

    Patch tokens are always *time-major* here (token = t * F + f), whatever the authors' order,
    so that the tokens that stand for audio are the first ``valid`` ones.
    """

    tokens: dict[int, Tensor]  # layer -> (B, N, D)
    cls: dict[int, Tensor] | None  # layer -> (B, D); None where the encoder has no cls token


@runtime_checkable
class Encoder(Protocol):
    """A frozen encoder, built for one clip length; in practice an ``nn.Module`` in eval mode.

    ``grid`` is the (F, T) of a full clip, ``N = F * T``. Layer ``k`` is the output of block ``k``
    (1-based); ``depth`` is the last one, after the final norm where the encoder has one.
    """

    sample_rate: int  # [Hz]
    clip_seconds: (
        float  # [s] longest clip it takes; longer ones are cut before the frontend (see `decode_seconds`)
    )
    grid: tuple[int, int]  # (F, T) of a full clip
    dim: int
    depth: int
    has_cls: bool

    def frontend(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (L_i,) float32 in [-1, 1] to features, always float32: (frames_i, mels), or raw (L_i,).

        Each result depends on its own waveform alone. Encoders that pad return one shape for all.
        """
        ...

    def valid_tokens(self, num_samples: int) -> int:
        """How many of the clip's tokens stand for audio rather than padding (a multiple of F)."""
        ...

    def __call__(self, features: Tensor, layers: Sequence[int]) -> Encoded:
        """Features (B, ...) of one shape to tokens (B, n, D); n <= N where shorter."""
        ...

    def settings(self) -> dict[str, Any]:
        """The resolved preprocessing and architecture as JSON values: part of the fingerprint."""
        ...


def decode_seconds(encoder: Encoder) -> float:
    """How much of a clip the frontend is to see [s]: ``clip_seconds`` unless the encoder asks for more.

    The authors of AudioMAE and EAT remove the mean of the whole clip and cut its frames, so theirs says
    ``decode_seconds = inf``.
    """
    seconds: float = getattr(encoder, "decode_seconds", encoder.clip_seconds)
    return seconds


def whole_columns(encoder: Encoder, features: Tensor) -> Tensor:
    """The frames of one clip (frames, mels) that its tokens are made of: as many tokens, one shape.

    Encoders that do not pad have a shape for every number of frames, and fewer for every number of columns;
    those say it by a method of this name, and give the same tokens of what it returns.
    """
    own: Callable[[Tensor], Tensor] | None = getattr(encoder, "whole_columns", None)
    return features if own is None else own(features)


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """One row of the table of encoders."""

    name: str
    build: Callable[..., Encoder]  # (weights: str | None, clip_seconds: float | None) -> Encoder
    sample_rate: int  # [Hz]
    clip_seconds: float  # [s] the authors' clip length, used unless asked otherwise
    dim: int
    depth: int
    has_cls: bool
    grid: tuple[int, int]  # (F, T) at clip_seconds
    frontend: str
    padding: str
    tokens: str  # which output the patch tokens are
    clip_vector: str  # the authors' own clip-level vector
    weights: str | None  # default weights, None where a path must be given (or none are needed)
    needs_weights: bool
    licence: str  # of the weights, in the words of their source
    source: str  # paper and repository @ commit
    checked: str  # against what the implementation was checked
