"""Bird-MAE: AudioMAE's ViT on five seconds of bird song at 32 kHz."""

from functools import partial

from featcache.audio.fbank import KaldiFbank
from featcache.encoders.audiomae import IGNORED
from featcache.encoders.base import Encoder, EncoderSpec
from featcache.encoders.patches import Patches, clip_frames, round_up
from featcache.encoders.positions import mae_positions
from featcache.encoders.vit import ViTEncoder, freeze, mae_vit
from featcache.weights.checkpoint import load_checkpoint


def build_birdmae(
    weights: str, clip_seconds: float | None = None, *, num_heads: int | None = None
) -> Encoder:
    """Bird-MAE for clips of ``clip_seconds`` (5 unless given).

    The authors pad with the lowest value of the whole batch; here with the clip's own lowest, so
    that a clip does not depend on its neighbours.

    Source:
        DBD-research-group/Bird-MAE @a514ef5
    """
    seconds = 5.0 if clip_seconds is None else clip_seconds
    fbank = KaldiFbank(sample_rate=32_000)
    frames = round_up(clip_frames(fbank, seconds), 128)
    patches = Patches(fbank=fbank, mean=-7.2, scale=2 * 4.43, frames=frames, pad_value=None)
    checkpoint = load_checkpoint(weights).without("backbone.", "encoder.", "model.")
    vit = mae_vit(
        checkpoint, patches, mae_positions, architecture="Bird-MAE", num_heads=num_heads, ignored=IGNORED
    )
    return freeze(ViTEncoder(vit, patches, clip_seconds=seconds, architecture="Bird-MAE ViT"))


_spec = partial(
    EncoderSpec,
    build=build_birdmae,
    sample_rate=32_000,
    clip_seconds=5.0,
    has_cls=True,
    grid=(8, 32),
    frontend="Kaldi fbank at 32 kHz, 128 mel, hanning, waveform mean removed; (x + 7.2) / (2 * 4.43)",
    padding="the clip's own lowest log-mel (the authors: the batch's), up to a multiple of 128 frames",
    tokens="norm of the last block; a checkpoint without norm: the last block as it is",
    clip_vector="fc_norm of the mean of all un-normed patches",
    needs_weights=True,
    licence="missing: no LICENSE in the repository, none on the model cards seen; ask the authors",
    source="Rauch et al. 2025, Can Masked Autoencoders Also Listen to Birds?, arXiv:2504.12880; "
    "github.com/DBD-research-group/Bird-MAE @a514ef5",
    checked="AudioMAE's golden arrays (the same ViT); no run of its authors' code",
)
_HUB = "hf-hub:DBD-research-group/Bird-MAE-{}"

BIRDMAE_BASE = _spec(name="birdmae", dim=768, depth=12, weights=_HUB.format("Base"))
BIRDMAE_LARGE = _spec(name="birdmae-large", dim=1024, depth=24, weights=_HUB.format("Large"))
BIRDMAE_HUGE = _spec(name="birdmae-huge", dim=1280, depth=32, weights=_HUB.format("Huge"))
