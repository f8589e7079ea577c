"""Which stage bounded a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Where the time of a run went.

    The main thread does all but decoding and writing, and waits for those: its waiting says what it lacked.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)  # name of a span -> [s], in all threads
    wall: float  # [s] from the first clip to the last
    workers: int  # decoding threads
    cores: int
    device: str  # its type
    compute_dtype: str
    store_dtype: str

    def taken(self, name: str) -> float:
        """[s] of a span; 0 where it never was."""
        return self.seconds.get(name, 0.0)

    @property
    def main(self) -> dict[str, float]:
        """Stage -> [s] that the main thread spent on it, or waited for it."""
        waited = self.taken("wait for disk")
        return {
            "decode": self.taken("wait for decoding"),
            "encode": self.taken("frontend") + self.taken("encode"),
            "store": max(0.0, self.taken("store") - waited),
            "write": waited,
        }

    @property
    def bound(self) -> str:
        """The stage on which most of the main thread's time went: decode, encode, store or write."""
        return max(self.main, key=lambda name: self.main[name])

    def table(self) -> list[tuple[str, float, float, str]]:
        """Stage, [s] at work (of one thread), [s] waiting, and what for."""
        decode, main = self.taken("decode") / self.workers, self.main
        encode = main["encode"] + main["store"]
        write = self.taken("write") + self.taken("make durable")
        return [
            ("decode", decode, max(0.0, self.wall - decode), "until clips are taken"),
            ("encode", encode, main["decode"], "for decoding"),
            ("", 0.0, main["write"], "for the disk"),
            ("write", write, max(0.0, self.wall - write), "for tokens"),
        ]
