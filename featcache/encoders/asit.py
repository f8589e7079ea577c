"""ASiT: a ViT with learned positions on six seconds at 32 kHz."""

from featcache.audio.fbank import KaldiFbank
from featcache.encoders.base import Encoder, EncoderSpec
from featcache.encoders.patches import Patches, clip_frames, clip_samples
from featcache.encoders.positions import stretch
from featcache.encoders.vit import ViTEncoder, freeze, mae_vit
from featcache.weights.checkpoint import load_checkpoint

# The heads of pre-training and a classifier.
IGNORED = ("head_cls.", "head_recons.", "head.")


def build_asit(weights: str, clip_seconds: float | None = None, *, num_heads: int | None = None) -> Encoder:
    """ASiT for clips of ``clip_seconds`` (6 unless given).

    The authors have no rule for other lengths. Here shorter clips take the first columns of the
    learned positions, and longer ones stretch them linearly over time.

    Source:
        Sara-Ahmed/ASiT @1f1d63c
    """
    seconds = 6.0 if clip_seconds is None else clip_seconds
    fbank = KaldiFbank(sample_rate=32_000)
    patches = Patches(
        fbank=fbank,
        mean=-4.2677393,
        scale=2 * 4.5689974,
        frames=clip_frames(fbank, seconds) // 16 * 16,  # 6 s: 598 frames cut to the authors' 592
        pad_samples=clip_samples(seconds, fbank.sample_rate),
    )
    # The teacher of the training checkpoint is the model to use; both it and the student hold
    # the ViT under 'backbone.'.
    checkpoint = load_checkpoint(weights).without("backbone.")
    vit = mae_vit(checkpoint, patches, stretch, architecture="ASiT", num_heads=num_heads, ignored=IGNORED)
    return freeze(ViTEncoder(vit, patches, clip_seconds=seconds, architecture="ASiT ViT"))


ASIT = EncoderSpec(
    name="asit",
    build=build_asit,
    sample_rate=32_000,
    clip_seconds=6.0,
    dim=768,
    depth=12,
    has_cls=True,
    grid=(8, 37),
    frontend="Kaldi fbank at 32 kHz, 128 mel, hanning, waveform mean removed; "
    "(x + 4.2677393) / (2 * 4.5689974)",
    padding="zeros after the waveform up to the clip length; frames beyond a multiple of 16 are dropped",
    tokens="norm of the last block",
    clip_vector="cls",
    weights=None,
    needs_weights=True,
    licence="missing: no LICENSE in the repository; and there are no public weights",
    source="Atito et al. 2022, ASiT: Local-Global Audio Spectrogram vIsion Transformer, arXiv:2211.13189; "
    "github.com/Sara-Ahmed/ASiT @1f1d63c",
    checked="golden arrays of the authors' code on seeded weights; there are no published weights",
)
