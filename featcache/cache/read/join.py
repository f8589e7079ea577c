"""Find the clips of a manifest in a cache: by what their audio is, or by name where it is absent."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from featcache.errors import InputError
from featcache.manifest import Clip, Manifest
from featcache.manifest.digests import clip_keys
from featcache.records import failed_clips

if TYPE_CHECKING:
    from featcache.cache import TokenCache

Say = Callable[[str], None]  # takes one line of what a person should know


def join(
    cache: "TokenCache", manifest: Manifest, say: Say, *, progress: bool = False
) -> list[tuple[Clip, int]]:
    """The clips of the manifest that the cache holds, each with its row.

    A clip is found by the digest of its audio and segment, so a renamed file is still found and a
    changed one is not. Where the audio does not exist on this machine, the clip's id is looked up.

    Raises:
        InputError: clips are in the manifest but not in the cache, and extraction did not list
            them as failed.
    """
    keys = clip_keys(manifest.clips, progress=progress)
    rows = _rows(cache, manifest.clips, keys)
    absent = sum(key is None for key in keys)
    if absent:
        found = sum(key is None and row is not None for key, row in zip(keys, rows, strict=True))
        say(f"{absent} audio files are not on this machine; {found} of their clips are known by id")
    failed = failed_clips(cache.path)
    missing = [clip.id for clip, row in zip(manifest, rows, strict=True) if row is None]
    lost = [name for name in missing if name not in failed]
    if len(lost) == len(manifest):
        raise InputError(
            f"none of the {len(manifest)} clips of {manifest.path} is in the cache {cache.path}; "
            f"extract them with 'featcache extract {manifest.path} --out {cache.path}', "
            "or name another manifest",
            options=("manifests",),
        )
    if lost:
        names = ", ".join(lost[:3]) + (", …" if len(lost) > 3 else "")
        raise InputError(
            f"{len(lost)} of the {len(manifest)} clips of {manifest.path} are not in the cache {cache.path} "
            f"({names}); 'featcache extract {manifest.path} --out {cache.path}' adds what is missing"
        )
    if missing:
        say(
            f"{len(missing)} clips could not be decoded at extraction and are left out "
            f"(see {cache.path / 'failed.jsonl'})"
        )
    return [(clip, row) for clip, row in zip(manifest, rows, strict=True) if row is not None]


def _rows(cache: "TokenCache", clips: Sequence[Clip], keys: Sequence[bytes | None]) -> list[int | None]:
    by_key = iter(cache.rows_of([key for key in keys if key is not None]))
    by_id = {name: row for row, name in enumerate(cache.ids)} if None in keys else {}
    return [
        by_id.get(clip.id) if key is None else next(by_key) for clip, key in zip(clips, keys, strict=True)
    ]
