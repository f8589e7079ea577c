"""Which clips an extraction is of: those of a manifest, or their windows, and variants of them."""

from dataclasses import dataclass
from pathlib import Path

from featcache.cache.format.durable import writing
from featcache.errors import InputError
from featcache.manifest import Manifest, load_manifest, write_manifest
from featcache.manifest.digests import clip_keys
from featcache.manifest.files import file_problem, printable
from featcache.manifest.variants import Mixup, with_variants
from featcache.manifest.windows import window_manifest
from featcache.records import CLIPS, WINDOWS


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The clips of one extraction, and what they were made of."""

    manifest: Manifest  # as it was given
    clips: Manifest  # what is encoded
    keys: list[bytes | None]  # content key of each of the clips, None where its file cannot be read
    windowed: bool
    augment: Mixup | None

    def write(self, cache: Path) -> Path:
        """The manifest that says it all, as probe reads it by default: made in the cache if need be.

        Raises:
            OutputError: the cache cannot be written.
        """
        if not (self.windowed or self.manifest.own_columns or self.augment):
            return self.manifest.path
        path = cache / (WINDOWS if self.windowed else CLIPS)
        with writing(cache):
            write_manifest(path, self.clips.clips)
        return path


def opened(
    manifest: Manifest | str | Path, path_column: str | None, label_column: str | None, skip_failed: bool
) -> Manifest:
    """The manifest, all files of which are there.

    Args:
        skip_failed: or are not

    Raises:
        InputError: it cannot be read, clips share an id, or files are missing.
    """
    if not isinstance(manifest, Manifest):
        manifest = load_manifest(manifest, path_column=path_column, label_column=label_column)
    manifest.require_own_ids()
    missing = manifest.missing_files()
    if missing and not skip_failed:
        raise InputError(
            f"{len(missing)} of {len(manifest)} clips of {manifest.path} have no file, "
            f"first {printable(missing[0].path)} ({file_problem(missing[0].path)}); mend the manifest, "
            "or go on without them with skip_failed",
            options=("skip_failed",),
        )
    return manifest


def wanted_clips(
    manifest: Manifest,
    *,
    window_seconds: float | None,
    hop_seconds: float | None,
    accept_truncated: bool,
    augment: Mixup | None,
    rehash: bool,
    progress: bool,
) -> Wanted:
    """The clips to have tokens of, and the keys of what they hold."""
    clips = manifest
    if window_seconds is not None:
        clips = window_manifest(manifest, window_seconds, hop_seconds, accept_truncated=accept_truncated)
    keys = clip_keys(clips.clips, rehash=rehash, progress=progress)
    if augment:
        clips = with_variants(clips, keys, augment)
        keys = clip_keys(clips.clips)
    return Wanted(
        manifest=manifest, clips=clips, keys=keys, windowed=window_seconds is not None, augment=augment
    )
