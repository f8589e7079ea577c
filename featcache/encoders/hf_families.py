"""What comes out of a family's encoder in transformers: how it lies in time and frequency, and its sizes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from featcache.errors import InputError
from featcache.weights.download import reason_of


@dataclass(frozen=True, kw_only=True)
class Family:
    """How the output of a family's encoder lies in time and frequency."""

    # (config, state (B, ...)) to (B, F, T, D); None: (B, T, D) is one row
    to_grid: Callable[[Any, Tensor], Tensor] | None = None
    to_cls: Callable[[Tensor], Tensor] | None = None  # state to (B, D)
    stages: bool = False  # inner layers have widths of their own: only the last output is kept
    per_column: Callable[[Any, Any], float] | None = None  # (config, extractor) to samples


def _ast_grid(config: Any, state: Tensor) -> Tensor:
    rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    # Frequency-major, after a cls and a distillation token.
    return state[:, 2:].reshape(len(state), rows, -1, state.shape[-1])


FAMILIES: dict[str, Family] = {
    "audio-spectrogram-transformer": Family(
        to_grid=_ast_grid,
        to_cls=lambda state: state[:, :2].mean(1),
        per_column=lambda config, extractor: config.time_stride * extractor.sampling_rate / 100,
    ),
    # A Swin transformer that folds time into frequency; its last output is unfolded to (B, D, F, T).
    "clap_audio_model": Family(to_grid=lambda config, state: state.permute(0, 2, 3, 1), stages=True),
}
_TIME_ONLY = Family()

# Types of models whose tokens a test holds to transformers' own call; others may work, and say so.
CHECKED = frozenset(
    [
        "wav2vec2",
        "hubert",
        "wavlm",
        "data2vec-audio",
        "sew",
        "unispeech",
        "unispeech-sat",
        "wav2vec2-conformer",
        "wav2vec2-bert",
        "moonshine",
        "whisper",
        "audio-spectrogram-transformer",
        "clap",
        "parakeet_encoder",
    ]
)


def family_of(model: Any) -> Family:
    """The family of an audio encoder; one that is not in the table has one token per time step."""
    return FAMILIES.get(model.config.model_type, _TIME_ONLY)


class Measured:
    """Sizes of an encoder's output, by running it on shapes alone, once for each shape."""

    def __init__(self, name: str, empty: Any) -> None:
        family = family_of(empty)
        self._name, self._family, self._empty = name, family, empty
        self._measured: dict[torch.Size, tuple[torch.Size, int]] = {}

    def columns(self, shape: torch.Size) -> int:
        """T of features of a shape."""
        return self._measure(shape)[0][2]

    def sizes(self, shape: torch.Size) -> tuple[int, int, int]:
        """F, D and the number of layers.

        Raises:
            InputError: the output is no token map, or the model does not run on shapes alone.
        """
        kind = self._empty.config.model_type
        try:
            (_, rows, _, dim), depth = self._measure(shape)
        except Exception as error:  # another signature, no hidden states, values looked at: as models please
            raise InputError(
                f"{self._name}: a {kind} does not give hidden states (B, T, D) for its feature extractor's "
                f"output ({reason_of(error)}); write a plug-in for it (docs/adding-an-encoder.md)"
            ) from error
        return rows, dim, depth

    def _measure(self, shape: torch.Size) -> tuple[torch.Size, int]:
        """(1, F, T, D) and the number of layers."""
        if shape not in self._measured:
            # CLAP: of four pictures that fusion joins, one gives the sizes.
            one = torch.Size((1, *shape[1:])) if self._family.stages else shape
            with torch.no_grad():
                output = run(self._empty, torch.empty(1, *one, device="meta"), every=True)
            depth = 1 if self._family.stages else len(output.hidden_states) - 1
            state, to_grid = output.last_hidden_state, self._family.to_grid
            grid = state[:, None] if to_grid is None else to_grid(self._empty.config, state)
            self._measured[shape] = grid.shape, depth
        return self._measured[shape]


def run(model: Any, features: Tensor, *, every: bool) -> Any:
    """The model's output for features (B, ...), with every hidden state or the last alone."""
    options = {}
    if model.config.model_type == "clap_audio_model":
        # Of a batch without a longer clip its extractor marks one at random; no clip is longer here.
        options["is_longer"] = torch.zeros(len(features), 1, dtype=torch.bool, device=features.device)
    return model(features, output_hidden_states=every, return_dict=True, **options)
