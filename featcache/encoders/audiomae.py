"""AudioMAE, pre-trained or fine-tuned, on timm's ViT."""

from featcache.audio.fbank import KaldiFbank
from featcache.encoders.base import Encoder, EncoderSpec
from featcache.encoders.classifier import mean_of_tokens, read_classifier
from featcache.encoders.patches import Patches, clip_frames, round_up
from featcache.encoders.positions import mae_positions
from featcache.encoders.vit import ViTEncoder, freeze, mae_vit
from featcache.weights.checkpoint import load_checkpoint

# Decoder and mask token of pre-training; norm after the mean and classifier of fine-tuning.
IGNORED = ("decoder_", "mask_token", "fc_norm.", "head.")


def build_audiomae(
    weights: str, clip_seconds: float | None = None, *, num_heads: int | None = None, final_norm: bool = True
) -> Encoder:
    """AudioMAE for clips of ``clip_seconds`` (10 unless given).

    Args:
        num_heads: of a checkpoint whose width was not published
        final_norm: false keeps the last block's output as fine-tuning reads it, before ``norm``

    Source:
        facebookresearch/AudioMAE @bd60e29, models_mae.py, models_vit.py, dataset.py
    """
    seconds = 10.0 if clip_seconds is None else clip_seconds
    fbank = KaldiFbank(sample_rate=16_000)
    patches = Patches(
        fbank=fbank,
        mean=-4.2677393,
        scale=2 * 4.5689974,
        # 128, 512 and 1024 frames for 1, 5 and 10 s as the authors. A multiple of 8 columns keeps
        # mel bands apart in the transposed position table (see mae_positions).
        frames=round_up(clip_frames(fbank, seconds), 128),
        whole_clips=True,
    )
    checkpoint = load_checkpoint(weights)
    vit = mae_vit(
        checkpoint,
        patches,
        mae_positions,
        architecture="AudioMAE",
        num_heads=num_heads,
        ignored=IGNORED,
        final_norm=final_norm,
    )
    encoder = ViTEncoder(vit, patches, clip_seconds=seconds, architecture="AudioMAE ViT")
    if "norm.weight" not in checkpoint.state:  # the head reads tokens that are not normed
        encoder.classifier = read_classifier(checkpoint, "head", mean_of_tokens, norm="fc_norm")
    return freeze(encoder)


AUDIOMAE = EncoderSpec(
    name="audiomae",
    build=build_audiomae,
    sample_rate=16_000,
    clip_seconds=10.0,
    dim=768,
    depth=12,
    has_cls=True,
    grid=(8, 64),
    frontend="Kaldi fbank, 128 mel, hanning, waveform mean removed; (x + 4.2677393) / (2 * 4.5689974)",
    padding="zeros after the log-mel, before normalisation, up to a multiple of 128 frames",
    tokens="norm of the last block; a fine-tuned checkpoint has no norm, then the last block as it is",
    clip_vector="fine-tuned: fc_norm of the mean of all un-normed patches",
    weights="hf-hub:gaunernst/vit_base_patch16_1024_128.audiomae_as2m",
    needs_weights=True,
    licence="non-commercial: CC BY-NC 4.0 (LICENSE file; the README says CC BY 4.0)",
    source="Huang et al. 2022, Masked Autoencoders that Listen, arXiv:2207.06405; "
    "github.com/facebookresearch/AudioMAE @bd60e29",
    checked="golden arrays of the authors' code on seeded weights; published weights not checked",
)
