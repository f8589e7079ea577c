"""A saved head with the encoder whose tokens it was trained on."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from featcache.cache.format.dtypes import store_dtype
from featcache.cache.format.fingerprint import as_json, fingerprint_differences
from featcache.cache.write.plain import mean_token
from featcache.devices import choose_device
from featcache.encoders import build_encoder
from featcache.errors import InputError, MismatchError
from featcache.extraction.batcher import ClipTokens, tokens_of
from featcache.extraction.fingerprint import fingerprint_of
from featcache.extraction.runner import Runner
from featcache.heads.base import Head
from featcache.heads.data.batch import Batch, Need, needs_of
from featcache.heads.framewise import Framewise

# What tokens are of; which layers a cache kept besides is no part of it.
COMPARED = ("weights", "settings", "clip_seconds", "audio", "compute_dtype")
DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class Predictor:
    """Gives the logits that the head would give of a clip's tokens in a cache.

    Tokens are rounded as that cache rounds them, where it stores floats. (int8 and int4 are scaled by what
    was chosen from the cache's first clips, and are not rounded here.)

    Args:
        head: in evaluation mode
        config: what was saved beside it
        path: its file, for messages
        encoder: its name, or ``FILE.py:CLASS``, where the config does not say it all
        weights: as for `featcache.extract`; the encoder's own unless given
        encoder_options: as for `featcache.extract`

    Raises:
        InputError: the head was not saved by a probe, or its encoder cannot be built.
        MismatchError: the encoder is not the one that the head was trained on.
    """

    def __init__(
        self,
        head: Head,
        config: Mapping[str, Any],
        path: str | Path,
        *,
        encoder: str | None = None,
        weights: str | None = None,
        encoder_options: Mapping[str, Any] | None = None,
        device: str = "auto",
    ) -> None:
        self.path, self.config = Path(path), config
        cache = self.config.get("cache")
        if not isinstance(cache, dict) or not self.config.get("class_names"):
            raise InputError(
                f"{path} does not say on which encoder's tokens it was trained; wanted a head that "
                "'featcache probe' saved"
            )
        self.fingerprint: dict[str, Any] = cache["fingerprint"]
        self.classes: list[str] = self.config["class_names"]
        self.single: bool = self.config["task"] == "single-label"
        self._rounded = store_dtype(cache["dtype"])
        self.device = choose_device(device)
        self.head = head.to(self.device)
        self._encoder = encoder, weights, encoder_options

    @cached_property
    def runner(self) -> Runner:
        """The encoder, built and compared when it is first needed."""
        name, weights, options = self._encoder
        own = self.fingerprint
        if name is None:
            name = _buildable(own["encoder"], self.path)
        encoder = build_encoder(name, weights, own["clip_seconds"], options)
        runner = Runner(encoder, device=self.device, dtype=DTYPES[own["compute_dtype"]], layers=self.layers)
        made = as_json(fingerprint_of(runner, own["encoder"]))
        differ = fingerprint_differences(
            {key: own.get(key) for key in COMPARED}, {key: made.get(key) for key in COMPARED}
        )
        if differ:
            field, wanted, found = differ[0]
            raise MismatchError(
                f"{self.path} was trained on tokens of another encoder than {name}: {field} was "
                f"{_short(wanted)} and is {_short(found)}; give that encoder's weights and options"
            )
        return runner

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that the head reads."""
        every = tuple(self.fingerprint["layers"])
        return every if self.head.reads == "layers" else (self.config["layer"],)

    @property
    def framewise(self) -> bool:
        """Whether the head has scores over time."""
        return isinstance(self.head, Framewise)

    def logits(self, waveforms: Sequence[Tensor]) -> Tensor:
        """Waveforms (L_i,) at the encoder's rate to logits (n, C)."""
        return torch.stack([self.of_tokens(clip) for clip in tokens_of(self.runner, waveforms)])

    @torch.inference_mode()
    def of_tokens(self, clip: ClipTokens) -> Tensor:
        """Logits (C,) of one encoded clip, on the CPU."""
        logits: Tensor = self.head(*self._inputs(clip))
        return logits[0].float().cpu()

    @torch.inference_mode()
    def frames(self, clip: ClipTokens) -> Tensor:
        """Logits of every time step of one encoded clip that is audio, (T, C), on the CPU.

        Raises:
            InputError: the head has no scores over time.
        """
        if not isinstance(self.head, Framewise):
            raise InputError(
                f"head {self.config['head']!r} has no scores over time; prototypical heads have them",
                options=("frames",),
            )
        tokens, cls, _ = self._inputs(clip)
        assert tokens is not None  # such heads read them
        F, T = self.runner.encoder.grid
        return self.head.logits_over_time(tokens, (F, T), cls)[0, : -(-clip.valid // F)].float().cpu()

    def _inputs(self, clip: ClipTokens) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """What the head reads of one clip, as a cache would give it."""
        rows, columns = self.runner.encoder.grid
        parts: dict[Need, Tensor] = {}
        has_cls = clip.cls is not None
        for name, layer in needs_of(self.head.reads, self.layers, self.layers[-1], has_cls):
            tokens = clip.tokens[layer]
            if name == "mean":
                parts[name, layer] = mean_token(tokens[: clip.valid])[None]
            elif name == "cls" and clip.cls is not None:
                parts[name, layer] = clip.cls[layer][None]
            else:
                own = tokens[: clip.valid]
                own = own if self._rounded.scaled else own.to(self._rounded.torch).float()
                short = rows * columns - clip.valid
                parts[name, layer] = (pad(own, (0, 0, 0, short)) if short else own)[None]
        audio = torch.arange(rows * columns)[None] < clip.valid
        batch = Batch(parts, {}, audio, clip.valid < rows * columns, "float32").to(self.device)
        return batch.inputs(self.head.reads, self.layers, self.layers[-1], has_cls)


def _buildable(name: str, path: Path) -> str:
    if name.startswith("custom:"):
        raise InputError(
            f"{path} was trained on tokens of an encoder of a user's, {name.removeprefix('custom:')}; no "
            "code that a file names is run: give FILE.py:CLASS as encoder",
            options=("encoder",),
        )
    return name


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
