"""`logmel`: the normalised log-mel patches themselves, the floor of every table.

No weights: what does an encoder add over the spectrogram that it reads?
"""

from collections.abc import Sequence

from torch import Tensor

from featcache.audio.fbank import LOG_FLOOR, KaldiFbank
from featcache.encoders.base import Encoded, Encoder, EncoderSpec
from featcache.encoders.patches import PatchEncoder, Patches, clip_frames, require_layers, round_up
from featcache.errors import InputError


class LogMel(PatchEncoder):
    """Patches of 16 frames x 16 mel bins as 256-wide tokens; layer 0 is the only one.

    Filter bank and normalisation are AudioMAE's. Padding is silence (Kaldi's log floor), not
    AudioMAE's zeros, which are loud.
    """

    def forward(self, features: Tensor, layers: Sequence[int]) -> Encoded:
        """Cut the features into patches.

        Shape:
            - features: (B, frames, 128)
            - tokens: (B, T*8, 256), each patch row by row (time, then frequency)
        """
        require_layers(layers, 0, 0)
        B, frames, mels = features.shape
        size = self.patches.patch
        patches = features.reshape(B, frames // size, size, mels // size, size).transpose(2, 3)
        return Encoded({0: patches.reshape(B, -1, size * size)}, None)  # (B, T*F, 256)


def build_logmel(weights: str | None = None, clip_seconds: float | None = None) -> Encoder:
    """The encoder for clips of ``clip_seconds`` (10 unless given).

    Raises:
        InputError: weights were given; it has none.
    """
    if weights:
        raise InputError(f"logmel has no weights to load; leave out {weights}")
    seconds = 10.0 if clip_seconds is None else clip_seconds
    fbank = KaldiFbank(sample_rate=16_000)
    patches = Patches(
        fbank=fbank,
        mean=-4.2677393,
        scale=2 * 4.5689974,
        frames=round_up(clip_frames(fbank, seconds), 128),
        pad_value=LOG_FLOOR,
    )
    about = {"architecture": "log-mel patches"}
    return LogMel(patches, clip_seconds=seconds, dim=256, depth=0, has_cls=False, about=about).eval()


LOGMEL = EncoderSpec(
    name="logmel",
    build=build_logmel,
    sample_rate=16_000,
    clip_seconds=10.0,
    dim=256,
    depth=0,
    has_cls=False,
    grid=(8, 64),
    frontend="Kaldi fbank, 128 mel, hanning, waveform mean removed; (x + 4.2677393) / (2 * 4.5689974)",
    padding="silence (log floor) up to a multiple of 128 frames",
    tokens="the normalised 16 x 16 patches themselves (layer 0)",
    clip_vector="mean",
    weights=None,
    needs_weights=False,
    licence="no weights",
    source="this project; the filter bank is Kaldi's (torchaudio.compliance.kaldi.fbank)",
    checked="frontend bit for bit against torchaudio",
)
