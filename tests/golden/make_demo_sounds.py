"""How featcache/datasets/sounds was made from Debian's package sonic-pi-samples (3.2.2~repack-8).

    apt-get download sonic-pi-samples && dpkg-deb -x sonic-pi-samples_*.deb DIR
    python tests/golden/make_demo_sounds.py DIR

A recording is taken only where two files of the package agree that it is CC0: its own paragraph in
``copyright`` and the list of sources in ``samples/README.md``. Needs scipy (not a dependency of featcache).
"""

import csv
import re
import sys
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

SOUNDS = Path(__file__).parents[2] / "featcache" / "datasets" / "sounds"
RATE = 16_000  # [Hz]
EVENT_SECONDS, BACKGROUND_SECONDS, FADE_SECONDS = 3.0, 8.0, 0.05

# A class needs seven recordings, four to train on and two to test on: bells and guitars have too few.
# Soft and hard strokes of one drum stay in one split. Assigned by name and by looking at spectrograms.
SPLITS = {
    "kick": (
        "bd_808 bd_pure bd_boom bd_fat bd_gas bd_haus drum_bass_hard drum_bass_soft",
        "bd_klub bd_sone elec_hollow_kick elec_soft_kick",
        "bd_ada bd_tek bd_zome bd_zum drum_heavy_kick",
    ),
    "snare": (
        "drum_snare_hard drum_snare_soft elec_snare elec_filt_snare sn_dub",
        "elec_hi_snare elec_mid_snare",
        "sn_dolf sn_zome elec_lo_snare",
    ),
    "tom": (
        "drum_tom_hi_hard drum_tom_hi_soft drum_tom_lo_hard drum_tom_lo_soft",
        "elec_fuzz_tom",
        "drum_tom_mid_hard drum_tom_mid_soft",
    ),
    "cymbal": (
        "drum_cymbal_closed drum_cymbal_pedal drum_cymbal_hard drum_cymbal_soft",
        "drum_cymbal_open elec_cymbal",
        "drum_splash_hard drum_splash_soft",
    ),
    "blip": (
        "elec_beep elec_blip elec_blip2 elec_plip elec_pop",
        "elec_blup",
        "elec_ping elec_twip",
    ),
    "bass": (
        "bass_drop_c bass_hard_c bass_thick_c bass_voxy_c bass_voxy_hit_c",
        "bass_trance_c bass_dnb_f",
        "bass_woodsy_c bass_hit_c",
    ),
    "bayan": (
        "tabla_ghe1 tabla_ghe2 tabla_ghe3 tabla_ghe4",
        "tabla_ghe5 tabla_ghe6",
        "tabla_ghe7 tabla_ghe8",
    ),
    "dayan": (
        "tabla_na tabla_tun1 tabla_tas1 tabla_tas2",
        "tabla_tun2 tabla_tas3",
        "tabla_na_o tabla_tun3",
    ),
    "tabla slap": (
        "tabla_ke1 tabla_ke2 tabla_te1 tabla_te_m tabla_re",
        "tabla_ke3 tabla_te_ne",
        "tabla_te2 tabla_dhec tabla_na_s",
    ),
    "background": (
        "vinyl_hiss ambi_glass_hum ambi_haunted_hum ambi_choir",
        "ambi_glass_rub ambi_dark_woosh",
        "ambi_drone ambi_lunar_land",
    ),
}


HEADER = """\
# Where these recordings come from

All of them are dedicated to the public domain under
[CC0 1.0](https://creativecommons.org/publicdomain/zero/1.0/) by the authors named below, who
published them on freesound.org. They were taken from Debian's package `sonic-pi-samples`
(3.2.2~repack-8), and only where the file's own paragraph in the package's `copyright` and its line in
`samples/README.md` name the same freesound page and the licence CC0. CC0 asks for no attribution; we
give it because the authors deserve it.

What was changed in every file: mixed down to mono, resampled from 44.1 to 16 kHz, silence at both
ends (below -50 dB of the peak) cut, events cut after 3 s and backgrounds after 8 s with a fade of
50 ms, scaled to a peak of 0.9, stored as 16-bit FLAC. The file name is the original's. Sonic Pi had
trimmed some of them before. `tests/golden/make_demo_sounds.py` does it again. The package gives the
same page for `tabla_tas1` and `tabla_re`, though they are different recordings by the same author:
one of the two links is its slip.

| file | class | author, year | source | licence |
|---|---|---|---|---|"""


def cc0_sources(package: Path) -> dict[str, tuple[str, str]]:
    """Recording -> (author with year, link) for those that both files call CC0."""
    readme = (package / "usr/share/sonic-pi/samples/README.md").read_text()
    if "public domain via the Creative Commons 0 License" not in readme:
        raise SystemExit("the samples' README no longer says CC0")
    copyright_file = (package / "usr/share/doc/sonic-pi-samples/copyright").read_text()
    sources = {}
    for paragraph in copyright_file.split("\n\n"):
        name = re.search(r"^Files: etc/samples/(\w+)\.flac$", paragraph, re.M)
        author = re.search(r"^Copyright:\s+(.*)$", paragraph, re.M)
        link = re.search(r"freesound\.org/people/\S+/sounds/\d+/", paragraph)
        if name and author and link and re.search(r"^License: CC0$", paragraph, re.M):
            listed = re.search(rf"`:{name[1]}`\s*- (\S+)", readme)
            if listed and listed[1].endswith(link[0]):
                sources[name[1]] = (re.sub(r" <.*>", "", author[1]), f"https://{link[0]}")
    return sources


def prepare(path: Path, seconds: float) -> np.ndarray:
    """Mono, 16 kHz, cut to what is above -50 dB and at most ``seconds`` long, peak 0.9."""
    waveform, rate = soundfile.read(path, always_2d=True)
    waveform = resample_poly(waveform.mean(axis=1), RATE // 100, rate // 100)
    loud = np.flatnonzero(np.abs(waveform) > np.abs(waveform).max() * 10 ** (-50 / 20))
    kept = waveform[loud[0] : loud[-1] + 1]
    if len(kept) > seconds * RATE:
        kept = kept[: int(seconds * RATE)]
        fade = int(FADE_SECONDS * RATE)
        kept[-fade:] *= np.linspace(1, 0, fade)
    return 0.9 * kept / np.abs(kept).max()


def main(package: Path) -> None:
    sources = cc0_sources(package)
    rows = []
    for label, splits in SPLITS.items():
        folder = SOUNDS / label.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        for split, names in zip(("train", "valid", "test"), splits, strict=True):
            for name in names.split():
                author, link = sources[name]
                seconds = BACKGROUND_SECONDS if label == "background" else EVENT_SECONDS
                original = package / f"usr/share/sonic-pi/samples/{name}.flac"
                waveform = prepare(original, seconds)
                soundfile.write(folder / f"{name}.flac", waveform, RATE, subtype="PCM_16")
                path = f"{folder.name}/{name}.flac"
                rows.append([path, label, split, f"{len(waveform) / RATE:.2f}", author, link, "CC0-1.0"])
    with (SOUNDS / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "split", "seconds", "author", "source", "licence"])
        writer.writerows(rows)
    (SOUNDS / "ATTRIBUTION.md").write_text(attribution(rows))


def attribution(rows: list[list[str]]) -> str:
    """The table of sources, one line a file."""
    lines = [HEADER]
    for path, label, _, _, author, link, _ in rows:
        year, name = author.split(" ", 1)
        lines.append(f"| `{path}` | {label} | {name}, {year} | <{link}> | CC0 1.0 |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
