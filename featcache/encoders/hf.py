"""``hf:OWNER/NAME``: the audio encoder of any model of transformers (extra ``hf``), or of a local folder."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from featcache.audio.blocks import require_samples
from featcache.encoders.base import Encoded, Encoder, EncoderSpec
from featcache.encoders.hf_families import CHECKED, Measured, family_of, run
from featcache.encoders.hf_lengths import Lengths, extracting, require_whole, window_samples
from featcache.encoders.hf_load import Described, describe, empty_model, load_model
from featcache.encoders.patches import clip_samples, require_layers
from featcache.encoders.vit import freeze
from featcache.errors import InputError

# What says nothing of the computation: where a model lies, and with which version it was saved.
_NOT_SETTINGS = (
    "_name_or_path",
    "transformers_version",
    "architectures",
    "processor_class",
    "auto_map",
    "dtype",
)


class HFEncoder(nn.Module):
    """An audio encoder of transformers on its own feature extractor's output, for one clip length.

    Every clip goes through the extractor alone and only clips of one shape share a batch, so nothing is
    padded beyond what the extractor does to a lone clip, and no attention mask is needed.
    """

    def __init__(self, name: str, described: Described, model: Any, empty: Any, clip_seconds: float) -> None:
        super().__init__()
        self.model = model
        self._described, self._extract = described, extracting(described.extractor)
        self._family = family_of(empty)
        self.sample_rate: int = described.extractor.sampling_rate
        self.clip_seconds = clip_seconds
        samples = clip_samples(clip_seconds, self.sample_rate)
        require_whole(name, described.extractor, self._extract, samples)
        measured = Measured(name, empty)
        rows, self.dim, self.depth = measured.sizes(self._extract(torch.zeros(samples)).shape)
        self._lengths = Lengths(
            empty, self._extract, measured.columns, num_samples=samples,
            per_column=partial(self._samples_per_column, samples=samples),
        )  # fmt: skip
        self.has_cls = self._family.to_cls is not None
        self.grid = (rows, self._lengths.of(samples))
        most = getattr(empty.config, "max_source_positions", None)
        if most is not None and self.grid[1] > most:
            raise InputError(
                f"{name} has positions for {most} tokens, and clips of {clip_seconds:g} s give "
                f"{self.grid[1]}; give fewer seconds",
                options=("clip_seconds",),
            )
        self.padded = self._lengths.padded
        self._shortest = self._lengths.shortest(samples)

    def _samples_per_column(self, columns: int, samples: int) -> float:
        extractor = self._described.extractor
        if self._family.per_column is not None:
            return self._family.per_column(self._described.config, extractor)
        longest = window_samples(extractor, self._extract, samples) or samples
        return longest / columns

    def frontend(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (L_i,) to what the model's feature extractor makes of each alone, float32."""
        for waveform in waveforms:
            self.valid_tokens(len(waveform))
        return [self._extract(waveform) for waveform in waveforms]

    def valid_tokens(self, num_samples: int) -> int:
        """Tokens of the columns that stand for audio, by the model's own rule."""
        require_samples(num_samples, self._shortest, self.sample_rate, "one token")
        return self.grid[0] * min(self.grid[1], self._lengths.of(num_samples))

    def forward(self, features: Tensor, layers: Sequence[int]) -> Encoded:
        """Features (B, ...) to ``layers``; the last is the model's own output, after its final norm."""
        wanted = require_layers(layers, 1, self.depth)
        output = run(self.model, features, every=wanted != [self.depth])
        states = {
            layer: output.last_hidden_state if layer == self.depth else output.hidden_states[layer]
            for layer in wanted
        }
        to_cls = self._family.to_cls
        cls = None if to_cls is None else {layer: to_cls(state) for layer, state in states.items()}
        return Encoded({layer: self._time_major(state, layer) for layer, state in states.items()}, cls)

    def _time_major(self, state: Tensor, layer: int) -> Tensor:
        config, to_grid = self.model.config, self._family.to_grid
        if to_grid is not None:
            return to_grid(config, state)[:, :, : self.grid[1]].transpose(1, 2).flatten(1, 2)
        if layer < self.depth and (squeeze := getattr(config, "squeeze_factor", 1)) > 1:
            state = state.repeat_interleave(squeeze, dim=1)  # SEW's inner tokens span several of its output's
        return state[:, : self.grid[1]]

    def settings(self) -> dict[str, Any]:
        """Configuration and feature extractor as JSON values; the weights are digested beside them."""
        config, extractor = (
            {key: value for key, value in each.to_dict().items() if key not in _NOT_SETTINGS}
            for each in (self.model.config, self._described.extractor)
        )
        about = {"architecture": f"transformers {self.model.config.model_type}", "grid": list(self.grid)}
        return {**about, "tokens": "last hidden state", "config": config, "extractor": extractor}


def build_hf(
    name: str,
    weights: str | None = None,
    clip_seconds: float | None = None,
    *,
    trust_remote_code: bool = False,
) -> Encoder:
    """The audio encoder of a model of transformers.

    Args:
        name: ``hf:OWNER/NAME`` on the Hugging Face Hub, or ``hf:FOLDER`` where ``save_pretrained`` left one
        weights: none: they are part of the model
        clip_seconds: [s] the model's own window unless given; 10 where it takes any length
        trust_remote_code: run the Python code that the repository brings, with all your rights

    Raises:
        InputError: no audio encoder, clips that are too long, or code that was not allowed.
        MissingError: it is not here and cannot be fetched.
    """
    if weights:
        raise InputError(f"{name} brings its own weights; leave out {weights}", options=("weights",))
    described = describe(name, trust_remote_code)
    seconds = _own_seconds(described.extractor) if clip_seconds is None else clip_seconds
    empty = empty_model(described, trust_remote_code)
    model = load_model(name, described.config, trust_remote_code)
    return freeze(HFEncoder(name, described, model, empty, seconds))


def hf_spec(name: str) -> EncoderSpec:
    """What is true of ``hf:OWNER/NAME``: from its configuration, without its weights."""
    described = describe(name, trust_remote_code=False)
    empty, extractor = empty_model(described, trust_remote_code=False), described.extractor
    shape = HFEncoder(name, described, empty, empty, _own_seconds(extractor))
    return EncoderSpec(
        name=name,
        build=partial(build_hf, name),
        sample_rate=shape.sample_rate,
        clip_seconds=shape.clip_seconds,
        dim=shape.dim,
        depth=shape.depth,
        has_cls=shape.has_cls,
        grid=shape.grid,
        frontend=f"its own {type(extractor).__name__}, each clip alone",
        padding="to the window of its extractor" if shape.padded else "none: the clip's own length",
        tokens="last hidden state (after the final norm where the model has one)",
        clip_vector="not stated",
        weights=None,  # they are part of the model
        needs_weights=False,
        licence="see the model's card",
        source=f"transformers, model type {described.config.model_type}",
        checked="transformers' own call on seeded weights of this type; published weights not checked"
        if described.config.model_type in CHECKED
        else "not: no test has run this type of model",
    )


def _own_seconds(extractor: Any) -> float:
    """The window that a model states, else 10 s or as much as its extractor takes."""
    rate, extract = extractor.sampling_rate, extracting(extractor)
    longest = window_samples(extractor, extract, 10 * rate)
    return 10.0 if longest is None else math.floor(longest / rate * 100) / 100
