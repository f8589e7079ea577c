"""What encoders of mel spectrograms at the clip's own length share: Dasheng, ATST-Frame, M2D, PaSST."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from featcache.audio.blocks import require_samples
from featcache.audio.melspec import CentredMel
from featcache.encoders.base import Encoded
from featcache.encoders.classifier import Classifies
from featcache.encoders.patches import clip_samples, require_layers
from featcache.errors import InputError

Model = Callable[[Tensor, Sequence[int]], dict[int, Tensor]]  # (B, frames, mels), layers -> states by layer


class MelEncoder(Classifies):
    """Nothing is padded beyond one patch: a clip has the tokens of its own length.

    Args:
        model: gives time-major patch tokens (B, n, D) of each layer, the last one normed
        rows: F
        columns: T of so many frames
        whole: spectrograms (frames, mels) cut or filled up to the frames of their columns
        patch_frames: width of a patch
        shortest_frames: fewest that give a patch
    """

    has_cls = False

    def __init__(
        self,
        model: nn.Module,
        front_end: CentredMel,
        *,
        clip_seconds: float,
        rows: int,
        columns: Callable[[int], int],
        whole: Callable[[Tensor], Tensor],
        shortest_frames: int,
        dim: int,
        depth: int,
        about: dict[str, Any],
    ) -> None:
        super().__init__()
        self.model, self.front_end = model, front_end
        self.sample_rate, self.clip_seconds = front_end.sample_rate, clip_seconds
        self.dim, self.depth = dim, depth
        self._columns, self._about = columns, about
        self.whole_columns = whole
        self._shortest = front_end.fewest_samples(shortest_frames)
        samples = clip_samples(clip_seconds, self.sample_rate)
        if samples < self._shortest:
            least = self._shortest / self.sample_rate
            raise InputError(
                f"clips of {clip_seconds} s are shorter than one token; take {least:.3g} s or more",
                options=("clip_seconds",),
            )
        self.grid = (rows, columns(front_end.num_frames(samples)))

    def frontend(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (L_i,) to spectrograms (frames_i, mels), always float32."""
        for waveform in waveforms:
            self.valid_tokens(len(waveform))
        spectrograms: list[Tensor] = self.front_end(waveforms)
        return spectrograms

    def valid_tokens(self, num_samples: int) -> int:
        """All tokens of the clip's own length."""
        require_samples(num_samples, self._shortest, self.sample_rate, "one patch")
        rows, columns = self.grid
        return rows * min(columns, self._columns(self.front_end.num_frames(num_samples)))

    def forward(self, features: Tensor, layers: Sequence[int]) -> Encoded:
        """Spectrograms (B, frames, mels) to the outputs of ``layers``."""
        return Encoded(self.model(features, require_layers(layers, 1, self.depth)), None)

    def settings(self) -> dict[str, Any]:
        """Preprocessing and architecture as JSON values."""
        size = {"dim": self.dim, "depth": self.depth, "grid": list(self.grid)}
        own = vars(self.front_end)
        mel = {name: own[name] for name in ("sample_rate", "n_fft", "hop", "top_db") if name in own}
        return {**self._about, **size, "mel": mel}
