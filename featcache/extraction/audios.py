"""The clips of a run by the audio that they hold: equal audio is encoded once."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set

from featcache.cache.format.layout import KEY_BYTES
from featcache.manifest import Clip


class Audios:
    """What one run is to bring into a cache.

    Args:
        keys: content key of each clip, None where its file cannot be read
        elsewhere: keys of clips that are stored in another place, and count as present

    Attributes:
        clips: the first clip of each audio, by key
        unread: keys that stand for files that cannot be read
    """

    def __init__(self, clips: Sequence[Clip], keys: Sequence[bytes | None], elsewhere: Set[bytes]) -> None:
        own = [_unreadable_key(clip) if key is None else key for clip, key in zip(clips, keys, strict=True)]
        self.unread = {found for found, key in zip(own, keys, strict=True) if key is None}
        self.clips: dict[bytes, Clip] = {}
        self._ids: dict[bytes, list[str]] = {}
        for clip, key in zip(clips, own, strict=True):
            self._ids.setdefault(key, []).append(clip.id)
            if key not in elsewhere:
                self.clips.setdefault(key, clip)
        self._waiting = {clip.id for clip in self.clips.values()}

    def reached(self, clips: Iterable[Clip]) -> None:
        """The run has come to these clips, whatever becomes of them."""
        self._waiting.difference_update(clip.id for clip in clips)

    def not_waiting(self, ids: Set[str]) -> set[str]:
        """Those of some ids that the run need not come to any more."""
        return set(ids - self._waiting)

    def failures(
        self, stored: Set[bytes], tried: Mapping[str, str], noted: Mapping[str, Mapping[str, str]]
    ) -> dict[str, str]:
        """Every clip that has failed, with the reason; all clips of one audio fail together.

        Nothing waits for them any more.

        Args:
            tried: reasons of this run, by the id of the first clip of an audio
            noted: those that a cache remembers from all writers, by key (hex)
        """
        failed: dict[str, str] = {}
        for key, clip in self.clips.items():
            if key not in stored and (clip.id in tried or key.hex() in noted):
                reason = tried.get(clip.id) or noted[key.hex()]["reason"]
                failed |= dict.fromkeys(self._ids[key], f"holds the same as {clip.id}: {reason}")
                failed[clip.id] = reason
                self.reached([clip])
        return failed


def _unreadable_key(clip: Clip) -> bytes:
    """What stands for the content of a file that cannot be read."""
    return hashlib.blake2b(f"unreadable {clip.id}".encode(), digest_size=KEY_BYTES).digest()
