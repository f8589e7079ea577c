"""The filter banks are torchaudio's for one clip, whatever else is in the batch."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchaudio
from torch import Tensor

from featcache.audio import blocks as waveforms_module
from featcache.audio import fbank_pass
from featcache.audio.fbank import EPSILON, LOG_FLOOR, KaldiFbank, mel_bank
from featcache.audio.melspec import MelDecibels
from featcache.errors import AudioError


def sound(samples: int, *, seed: int = 0, level: float = 0.1) -> Tensor:
    """A tone in noise, on a constant, with a stretch of exact silence."""
    random = torch.Generator().manual_seed(seed)
    wave = torch.randn(samples, generator=random) * 0.1 + torch.sin(torch.arange(samples) * 0.3) + 0.01
    wave[samples // 3 : samples // 2] = 0.01
    return wave * level


in_c = pytest.mark.skipif(not fbank_pass.serves(128), reason="no C compiler, or no AVX2")


@pytest.fixture
def in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filter banks without the pass in C."""
    monkeypatch.setattr(fbank_pass, "serves", lambda num_mels: False)


SETTINGS = [
    KaldiFbank(sample_rate=16_000),
    KaldiFbank(sample_rate=16_000, remove_mean=False),
    KaldiFbank(sample_rate=16_000, window="povey", gain=2.0**15, remove_mean=False),
    KaldiFbank(sample_rate=32_000),
    KaldiFbank(sample_rate=32_000, window="povey", num_mels=80),
]


@pytest.mark.parametrize(
    "fbank", SETTINGS, ids=lambda f: f"{f.sample_rate}-{f.window}-{f.gain:g}-{f.num_mels}"
)
@pytest.mark.parametrize("seconds", [0.2, 1.0, 3.0])
def test_the_filter_bank_is_that_of_torchaudio(
    fbank: KaldiFbank, seconds: float, torchaudios_fbank: Callable[..., Tensor]
) -> None:
    waveform = sound(round(seconds * fbank.sample_rate))
    torch.testing.assert_close(fbank([waveform])[0], torchaudios_fbank(waveform, fbank), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("in_torch")
@pytest.mark.parametrize("fbank", SETTINGS[::2], ids=lambda f: f"{f.sample_rate}-{f.window}")
def test_without_a_compiler_the_filter_bank_is_that_of_torchaudio(
    fbank: KaldiFbank, torchaudios_fbank: Callable[..., Tensor]
) -> None:
    waveform = sound(fbank.sample_rate)
    torch.testing.assert_close(fbank([waveform])[0], torchaudios_fbank(waveform, fbank), rtol=0, atol=1e-5)


@in_c
@pytest.mark.parametrize("fbank", SETTINGS, ids=lambda f: f"{f.sample_rate}-{f.window}-{f.gain:g}")
@pytest.mark.parametrize("frames", [1, 128, 301])
def test_the_frames_of_the_pass_in_c_have_the_bits_of_torch(
    fbank: KaldiFbank, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveform = sound(fbank.frame_length + (frames - 1) * fbank.frame_shift)
    seen: list[Tensor] = []
    rfft = torch.fft.rfft

    def noted(padded: Tensor, out: Tensor | None = None) -> Tensor:
        seen.append(padded.clone())
        return rfft(padded, out=out)

    monkeypatch.setattr(torch.fft, "rfft", noted)
    (in_blocks,) = fbank([waveform])
    own = torch.cat(seen)
    seen.clear()
    monkeypatch.setattr(fbank_pass, "serves", lambda num_mels: False)
    (at_once,) = fbank([waveform])
    assert torch.equal(own, torch.cat(seen))
    torch.testing.assert_close(in_blocks, at_once, rtol=0, atol=4e-6)


@pytest.mark.parametrize("way", [pytest.param("in_c", marks=in_c), "in_torch"])
def test_what_is_done_with_each_log_mel_may_write_into_it(way: str, request: pytest.FixtureRequest) -> None:
    if way == "in_torch":
        request.getfixturevalue(way)
    fbank, waveforms = KaldiFbank(sample_rate=16_000), [sound(8_000), sound(5_000, seed=1)]
    wanted = [log_mel - 1 for log_mel in fbank(waveforms)]
    found = fbank(waveforms, then=lambda log_mel: log_mel.sub_(1))
    assert all(map(torch.equal, found, wanted))


@in_c
def test_the_energies_of_the_pass_in_c_are_sums_over_the_triangles(monkeypatch: pytest.MonkeyPatch) -> None:
    spectra: list[Tensor] = []
    rfft = torch.fft.rfft

    def noted(padded: Tensor) -> Tensor:
        spectra.append(rfft(padded))
        return spectra[-1]

    monkeypatch.setattr(torch.fft, "rfft", noted)
    (log_mel,) = KaldiFbank(sample_rate=16_000)([sound(48_123)])
    power = torch.cat(spectra)[:, :256].to(torch.complex128).abs() ** 2
    energies = power @ mel_bank(16_000, 128).double()
    torch.testing.assert_close(log_mel.double().exp(), energies.clamp_min(EPSILON), rtol=2e-6, atol=0)


@pytest.mark.parametrize("way", [pytest.param("in_c", marks=in_c), "in_torch"])
def test_what_is_no_number_is_not_hidden(way: str, request: pytest.FixtureRequest) -> None:
    if way == "in_torch":
        request.getfixturevalue(way)
    waveform = sound(8_000)
    waveform[4_000] = torch.nan
    (log_mel,) = KaldiFbank(sample_rate=16_000, remove_mean=False)([waveform])
    held = torch.tensor([frame * 160 <= 4_000 < frame * 160 + 400 for frame in range(len(log_mel))])
    heard = mel_bank(16_000, 128).any(dim=0)  # the lowest triangles lie between two bins
    assert log_mel[held][:, heard].isnan().all()
    assert not log_mel[~held].isnan().any()


def test_a_batch_of_unequal_clips_gives_the_bits_of_each_alone() -> None:
    fbank = KaldiFbank(sample_rate=16_000)
    waveforms = [
        sound(n, seed=n, level=level) for n, level in ((16_000, 1), (5_000, 1e-4), (400, 1), (40_123, 1))
    ]
    waveforms.append(torch.zeros(8_000))
    for alone, together in zip((fbank([w])[0] for w in waveforms), fbank(waveforms), strict=True):
        assert torch.equal(alone, together)


def test_the_number_of_threads_does_not_matter() -> None:
    waveform, fbank = sound(160_000), KaldiFbank(sample_rate=16_000)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(fbank([waveform])[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.usefixtures("in_torch")
def test_clips_that_share_a_padded_block_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    waveforms = [sound(n, seed=n) for n in (16_000, 9_000, 12_345, 3_000)]
    for bank in (KaldiFbank(sample_rate=16_000), MelDecibels()):
        alone = [bank([waveform])[0] for waveform in waveforms]
        monkeypatch.setitem(waveforms_module.FRAMES_PER_BLOCK, "cpu", 250)  # two a block
        for a, b in zip(alone, bank(waveforms), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=2e-5)
        monkeypatch.undo()


def test_silence_is_the_log_floor() -> None:
    (silence,) = KaldiFbank(sample_rate=16_000)([torch.full((16_000,), 0.25)])
    np.testing.assert_allclose(silence, LOG_FLOOR, rtol=1e-6)


@pytest.mark.parametrize("bank", [KaldiFbank(sample_rate=16_000), MelDecibels()], ids=["kaldi", "decibels"])
def test_the_frontend_is_float32_under_autocast_and_for_half_waveforms(
    bank: KaldiFbank | MelDecibels,
) -> None:
    waveform = sound(8_000)
    plain = bank([waveform])[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(bank([waveform])[0], plain)
    assert bank([waveform.half()])[0].dtype == torch.float32


def test_a_waveform_shorter_than_one_frame_is_refused() -> None:
    with pytest.raises(AudioError, match=r"399 samples \(0.025 s\), fewer than one frame .*400 samples"):
        KaldiFbank(sample_rate=16_000)([torch.zeros(399)])


def torchaudio_decibels(waveforms: Tensor) -> Tensor:
    mel = torchaudio.transforms.MelSpectrogram(
        16_000, n_fft=512, hop_length=160, f_min=0.0, f_max=8000.0, n_mels=64
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torchaudio.transforms.AmplitudeToDB("power", top_db=120)(mel(waveforms))


@pytest.mark.parametrize("samples", [480, 16_000, 50_001])
def test_decibels_are_those_of_torchaudio(samples: int) -> None:
    waveform = sound(samples)
    wanted = torchaudio_decibels(waveform[None])[0].T
    torch.testing.assert_close(MelDecibels()([waveform])[0], wanted, rtol=0, atol=1e-4)


def test_a_quiet_clip_keeps_its_decibels_beside_a_loud_one() -> None:
    loud, quiet = sound(16_000, level=1.0), sound(16_000, level=1e-5)
    alone, beside = MelDecibels()([quiet])[0], MelDecibels()([loud, quiet])[1]
    assert torch.equal(alone, beside)
    coupled = torchaudio_decibels(torch.stack([loud, quiet]))[1].T
    assert (coupled - alone).abs().max() > 1.0  # what torchaudio does with a batch


@pytest.mark.gpu
@pytest.mark.parametrize("bank", [KaldiFbank(sample_rate=16_000), MelDecibels()], ids=["kaldi", "decibels"])
def test_a_gpu_gives_what_the_cpu_gives(bank: KaldiFbank | MelDecibels) -> None:
    waveforms = [sound(n, seed=n) for n in (160_000, 48_000, 16_001)]
    wanted = bank(waveforms)
    if isinstance(bank, MelDecibels):
        bank = bank.cuda()
    for cpu, gpu in zip(wanted, bank([w.cuda() for w in waveforms]), strict=True):
        assert (cpu - gpu.cpu()).abs().quantile(0.999) < 1e-3
