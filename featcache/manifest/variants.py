"""Variants of train clips: each a clip of its own, made by laying other train clips over one.

The paper stores "five augmented variants, mixup p = 0.9" of its few-shot clips and says no more of them. The
rules are those of the co-authors' online augmentation; what these leave open is chosen here, and said.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from featcache.arguments import FROM_ZERO, SHARE, Rule, count_up_to, is_number
from featcache.errors import InputError
from featcache.manifest.clip import Clip, Manifest
from featcache.manifest.variant import MixedIn, Variant


def _is_range(pair: Any) -> bool:
    numbers = isinstance(pair, list | tuple) and len(pair) == 2 and all(map(is_number, pair))
    return numbers and -200 <= pair[0] <= pair[1] <= 200


RULES: dict[str, Rule] = {
    "variants": count_up_to(1000),
    "mixup": SHARE,
    "mixup_snr": Rule("two numbers, the lower first (dB)", _is_range),
    "mixup_sources": count_up_to(100),
    "variant_seed": FROM_ZERO,
}


@dataclass(frozen=True, kw_only=True)
class Mixup:
    """How variants are drawn.

    Source:
        ``MultilabelMix`` in birdset/datamodule/components/augmentations.py of
        https://github.com/DBD-research-group/BirdSet; values of Bird-MAE's audio_birdset.yaml.
    """

    variants: int  # of each train clip
    mixup: float = 0.9  # probability that a variant is mixed; else it is a copy
    mixup_snr: tuple[float, float] = (2.0, 30.0)  # [dB] between which a variant's is drawn
    mixup_sources: int = 3  # the most clips that are laid over one
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        """As JSON values: part of the fingerprint."""
        return {**asdict(self), "mixup_snr": list(self.mixup_snr)}


def with_variants(manifest: Manifest, keys: Sequence[bytes | None], mixup: Mixup) -> Manifest:
    """The clips, then the variants of the train clips; a clip whose file cannot be read has none.

    What is drawn for a clip follows from the seed, its own audio and the train clips. Labels are the
    union of those of all that is in a variant.

    Args:
        keys: content key of each clip, None where its file cannot be read

    Raises:
        InputError: fewer than two train clips to mix.
    """
    pool = [
        (clip, key)
        for clip, key in zip(manifest, keys, strict=True)
        if clip.split == "train" and key is not None and clip.variant is None
    ]
    if len({key for _, key in pool}) < 2:
        raise InputError(
            f"variants mix train clips, and {manifest.path} has {len(pool)} that can be read; give the "
            "split 'train' to two rows or more, or leave variants out",
            options=("variants",),
        )
    pool.sort(key=lambda pair: pair[1])  # the order of rows decides nothing
    made = [
        _variant(clip, key, number, pool, mixup)
        for clip, key in zip(manifest, keys, strict=True)
        if clip.split == "train" and key is not None and clip.variant is None
        for number in range(1, mixup.variants + 1)
    ]
    found = replace(manifest, clips=(*manifest.clips, *made))
    found.require_own_ids()
    return found


def _variant(clip: Clip, key: bytes, number: int, pool: Sequence[tuple[Clip, bytes]], mixup: Mixup) -> Clip:
    """One variant.

    The rules draw how many clips are laid over one for a whole batch; here each variant draws it. Its
    clips are different ones, and never of the clip's own audio.
    """
    # Only ``random()``: its stream is promised to stay what it is.
    draw = random.Random(f"{mixup.seed}|{key.hex()}|{number}").random
    sources: list[MixedIn] = []
    labels = list(clip.labels)
    if draw() < mixup.mixup:
        count = 1 + int(draw() * mixup.mixup_sources)
        low, high = mixup.mixup_snr
        snr = round(low + draw() * (high - low), 3)
        others = len({own for _, own in pool}) - 1
        used = {key}
        while len(sources) < min(count, others):
            partner, own = pool[int(draw() * len(pool))]
            if own not in used:
                used.add(own)
                shift = round(draw(), 6)
                sources.append(MixedIn(id=partner.id, key=own.hex(), shift=shift, snr_db=snr))
                labels += partner.labels
    return replace(
        clip,
        id=f"{clip.id}#{number}",
        labels=tuple(dict.fromkeys(labels)),
        variant=Variant(of=clip.id, sources=tuple(sources)),
    )
