"""The frozen encoder on its device: waveforms in, token maps out."""

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from featcache.encoders.base import Encoded, Encoder, whole_columns
from featcache.errors import InputError
from featcache.extraction.transfer import OnHost, transfer_of

COMPUTE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Runner:
    """An encoder on its device, in its compute dtype. The frontend always runs in float32."""

    def __init__(self, encoder: Encoder, *, device: torch.device, dtype: str, layers: Sequence[int]) -> None:
        if dtype not in COMPUTE_DTYPES:
            raise InputError(f"no compute dtype {dtype!r}; known: {', '.join(COMPUTE_DTYPES)}")
        if isinstance(encoder, nn.Module):
            encoder.to(device).eval().requires_grad_(False)
        self.encoder, self.device, self.dtype = encoder, device, COMPUTE_DTYPES[dtype]
        self.layers = tuple(layers)
        self.transfer = transfer_of(device)

    @torch.inference_mode()
    def features(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (L_i,) on the host to features (frames_i, mels), of one shape for as many tokens."""
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
            return self.encoder(features, self.layers)

    @torch.inference_mode()
    def to_host(
        self, encoded: Encoded, valid: Sequence[int], dtype: torch.dtype | None
    ) -> Callable[[], OnHost]:
        """Begin to bring a batch to the host, as `Transfer.down`."""
        return self.transfer.down(encoded, valid, dtype)
