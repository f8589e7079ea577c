"""The waveforms of a run's clips, as its encoder can take them."""

from collections.abc import Iterable, Iterator, Mapping

from featcache.audio.decode_ahead import decode_ahead
from featcache.audio.load import Decoded
from featcache.cores import cores
from featcache.encoders.base import Encoder, decode_seconds
from featcache.errors import AudioError
from featcache.manifest import Clip
from featcache.spans import Spans

Sound = Decoded | AudioError  # or the reason why there is none


def decoding_threads(beside: int = 1) -> int:
    """One a core, of those that a process has where so many share the machine, and at most 8."""
    return min(8, cores(beside))


class Sounds:
    """Decodes clips for an encoder.

    Args:
        ahead: clips decoded before they are asked for
        timeout: [s] after which a clip is given up
        spans: where the time of decoding, and of waiting for it, is counted

    Attributes:
        partners: clips by id, for variants that others lie over
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        workers: int,
        ahead: int,
        accept_truncated: bool,
        timeout: float | None,
        spans: Spans,
    ) -> None:
        self.partners: Mapping[str, Clip] = {}
        self._encoder, self._workers, self._ahead = encoder, workers, ahead
        self._accept_truncated, self._timeout, self._spans = accept_truncated, timeout, spans

    def of(self, clips: Iterable[Clip]) -> Iterator[tuple[Clip, Sound]]:
        """Each clip, in order, with its waveform or why the encoder cannot have it."""
        decoded = decode_ahead(
            list(clips),
            sample_rate=self._encoder.sample_rate,
            max_seconds=decode_seconds(self._encoder),
            workers=self._workers,
            ahead=self._ahead,
            accept_truncated=self._accept_truncated,
            partners=self.partners,
            timeout=self._timeout,
            spans=self._spans,
        )
        while True:
            with self._spans.span("wait for decoding"):
                found = next(decoded, None)
            if found is None:
                return
            yield found[0], self._long_enough(found[1])

    def _long_enough(self, sound: Sound) -> Sound:
        """One short clip must not stop a run."""
        if isinstance(sound, AudioError):
            return sound
        try:
            self._encoder.valid_tokens(len(sound.waveform))
        except AudioError as error:
            return error
        return sound
