"""A split drawn for a manifest that lacks one: stratified by label, recordings kept whole."""

from collections.abc import Hashable
from dataclasses import replace

from featcache.errors import InputError
from featcache.heads.data.groups import groups_of
from featcache.heads.data.splits import hold_out
from featcache.manifest import Manifest
from featcache.manifest.digests import clip_keys


def draw_split(
    manifest: Manifest, split: str, fraction: float, *, seed: int = 0, progress: bool = False
) -> Manifest:
    """Mark a share of the train clips (of all, where no clip has a split) as another split.

    What is held out is what a probe would hold out: `hold_out`. Clips of one file, of equal audio or of one
    ``group`` stay together, so the audio of every file is read once.

    Args:
        split: ``valid`` or ``test``
        fraction: of the clips of each label, as near as whole recordings allow

    Raises:
        InputError: the manifest has that split already, holds augmented variants, or has too few clips.
    """
    clips = list(manifest)
    if any(clip.split == split for clip in clips):
        raise InputError(
            f"{manifest.path} has a {split} split already; drop it from the column 'split', or leave "
            f"{split} out",
            options=(split,),
        )
    if any(clip.variant for clip in clips):
        raise InputError(f"{manifest.path} has augmented variants; draw splits before they are made")
    bare = all(clip.split is None for clip in clips)
    if bare:
        clips = [replace(clip, split="train") for clip in clips]
    pool = [number for number, clip in enumerate(clips) if clip.split == "train"]
    digests = clip_keys(clips, progress=progress)
    keys: list[Hashable] = [clips[n].id if key is None else key for n, key in enumerate(digests)]
    groups = groups_of(clips, keys)
    _, held = hold_out(pool, fraction, seed, lambda n: clips[n].labels, lambda n: groups[n])
    for number in held:
        clips[number] = replace(clips[number], split=split)
    return replace(manifest, clips=tuple(clips))
