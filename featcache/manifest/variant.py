"""What an augmented variant of a clip is made of, as a cell of a manifest."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from featcache.errors import InputError


@dataclass(frozen=True, kw_only=True)
class MixedIn:
    """A clip that is laid over another."""

    id: str
    key: str  # 32 hex digits: its audio and segment
    shift: float  # of its length, by which it is turned round its end; 0 to 1
    snr_db: float  # [dB] what it is laid over against it


@dataclass(frozen=True, kw_only=True)
class Variant:
    """That a clip is another one with some laid over it, one after another; without any it is a copy."""

    of: str  # id
    sources: tuple[MixedIn, ...] = ()

    @property
    def ids(self) -> set[str]:
        """All clips that are in it."""
        return {self.of, *(source.id for source in self.sources)}

    def text(self) -> str:
        """The cell.

        >>> Variant(of="a").text()
        '{"of": "a", "sources": []}'
        """
        return json.dumps({"of": self.of, "sources": [asdict(source) for source in self.sources]})


def read_variant(where: str, text: str) -> Variant:
    """A variant from the text of its cell.

    Raises:
        InputError: it is none.
    """
    try:
        own = json.loads(text)
        sources = tuple(_source(**source) for source in own["sources"])
        return Variant(of=str(own["of"]), sources=sources)
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{where}: variant is {text[:80]!r}; wanted what 'featcache extract --variants' writes there"
        ) from None


def _source(id: str, key: str, shift: float, snr_db: float) -> MixedIn:
    if len(bytes.fromhex(key)) != 16:
        raise ValueError(key)
    return MixedIn(id=str(id), key=key, shift=float(shift), snr_db=float(snr_db))


def keys_in(sources: Sequence[MixedIn]) -> bytes:
    """What of its sources decides the audio of a variant."""
    return "".join(f"|{own.key}@{own.shift:.6f}:{own.snr_db:.3f}" for own in sources).encode()
