"""The frozen encoder on its device: waveforms in, token maps out."""

import contextlib
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from featcache.devices import threads
from featcache.encoders.base import Encoded, Encoder, whole_columns
from featcache.errors import InputError
from featcache.extraction.compiling import CompiledForward
from featcache.extraction.transfer import OnHost, transfer_of

COMPUTE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Runner:
    """An encoder on its device, in its compute dtype. The frontend always runs in float32.

    In a reduced dtype the weights of its linear layers and convolutions are cast once, and not in every
    batch; the tokens have the same bits. The module that was given keeps its own.
    """

    def __init__(self, encoder: Encoder, *, device: torch.device, dtype: str, layers: Sequence[int]) -> None:
        if dtype not in COMPUTE_DTYPES:
            raise InputError(f"no compute dtype {dtype!r}; known: {', '.join(COMPUTE_DTYPES)}")
        if isinstance(encoder, nn.Module):
            encoder.to(device).eval().requires_grad_(False)
        self.encoder, self.device, self.dtype = encoder, device, COMPUTE_DTYPES[dtype]
        self.layers = tuple(layers)
        self.transfer = transfer_of(device)
        self._weights = {} if self.dtype == torch.float32 else cast_weights(encoder, self.dtype)
        self.compiled: CompiledForward | None = None

    @torch.inference_mode()
    def features(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (L_i,) on the host to features (frames_i, mels), of one shape for as many tokens.

        On a CPU by one thread: what it does is too small to share, and others decode meanwhile.
        """
        with threads(1 if self.device.type == "cpu" else None):
            features = self.encoder.frontend(self.transfer.up(waveforms))
        return [whole_columns(self.encoder, own) for own in features]

    @torch.inference_mode()
    def encode(self, features: Tensor) -> Encoded:
        """Features (B, frames, mels) to tokens on the device."""
        with contextlib.ExitStack() as numerics:
            if self.dtype != torch.float32:
                numerics.enter_context(torch.autocast(self.device.type, dtype=self.dtype))
            elif self.device.type == "cuda":
                # By default cuDNN rounds the inputs of fp32 convolutions (patch embeddings) to TF32.
                numerics.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
            if self.compiled is not None and self.compiled.takes(features):
                return self.compiled(features)
            return self._forward(features)

    @torch.inference_mode()
    def to_host(
        self, encoded: Encoded, valid: Sequence[int], dtype: torch.dtype | None
    ) -> Callable[[], OnHost]:
        """Begin to bring a batch to the host, as `Transfer.down`."""
        return self.transfer.down(encoded, valid, dtype)

    def compile(self, batch_size: int) -> float:
        """Compile the encoder for batches of so many clips of full length, which takes a minute.

        Returns:
            How long it took [s].

        Raises:
            InputError: that cannot be done here.
        """
        encoder = self.encoder
        (longest,) = self.features([torch.zeros(round(encoder.clip_seconds * encoder.sample_rate))])
        self.compiled = CompiledForward(self._forward, (batch_size, *longest.shape))
        began = time.perf_counter()
        with self.compiled.explained():
            self.encode(longest.expand(batch_size, *longest.shape).contiguous())
        return time.perf_counter() - began

    def _forward(self, features: Tensor) -> Encoded:
        if self._weights and isinstance(self.encoder, nn.Module):
            encoded: Encoded = functional_call(self.encoder, self._weights, (features, self.layers))
            return encoded
        return self.encoder(features, self.layers)


def cast_weights(encoder: object, dtype: torch.dtype) -> dict[str, Tensor]:
    """Parameters of linear layers and convolutions in this dtype, by name: those that autocast would cast."""
    if not isinstance(encoder, nn.Module):
        return {}
    return {
        f"{name}.{key}" if name else key: own.detach().to(dtype)
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
        for key, own in module.named_parameters(recurse=False)
    }
