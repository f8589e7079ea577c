"""The page of a head: what it says is what a plain count says, and a browser opens, plays and filters it."""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result
from matplotlib.image import imread

from featcache.cli.main import featcache
from featcache.heads import HEADS, build_head, load
from featcache.heads.explain import page as page_module
from featcache.heads.explain.prototypes import firing
from featcache.heads.explain.subject import open_subject
from featcache.heads.explain.tokenmaps import activation, as_grid, attention, class_weights, evidence_of
from featcache.heads.explain.view import View

from .browser import CHROMIUM, Browser

KINDS = ("protobin", "proto", "mhca", "linear-mean")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of a second, their cache, and a head of each kind."""
    from featcache.extraction.extract import extract
    from featcache.heads.probing.probe import probe
    from featcache.manifest.events import Event, events_file, write_events

    root, random = tmp_path_factory.mktemp("explain"), np.random.default_rng(0)
    (root / "audio").mkdir()
    lines, events = ["path,labels,id,split"], []
    for number in range(24):
        label, pitch = ("low", 500) if number % 2 else ("high", 4000)
        sound = 0.01 * random.standard_normal(16_000)
        sound[4000:8000] += 0.3 * np.sin(2 * np.pi * pitch * np.arange(4000) / 16_000)
        soundfile.write(root / f"audio/{number}.wav", sound, 16_000)
        lines.append(
            f"audio/{number}.wav,{label},c{number},{('train', 'train', 'valid', 'test')[number // 2 % 4]}"
        )
        events.append(Event(id=f"c{number}", start=0.25, end=0.5, label=label))
    (root / "clips.csv").write_text("\n".join(lines) + "\n")
    write_events(events_file(root / "clips.csv"), events)
    extract(root / "clips.csv", out=root / "logmel.zarr", encoder="logmel", clip_seconds=1)
    probe(
        root / "logmel.zarr", root / "clips.csv", heads=list(KINDS), out=root / "results",
        epochs=4, seeds=1, solved=False, task="multi-label",
    )  # fmt: skip
    return root


def head_of(study: Path, kind: str) -> Path:
    return next((study / "results" / "heads").glob(f"*-{kind}-*.safetensors"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(featcache, ["explain", *map(str, arguments)])


def data_of(path: Path) -> dict[str, Any]:
    found = re.search(r"^const DATA = (.*);$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def content(address: str) -> io.BytesIO:
    return io.BytesIO(base64.b64decode(address.split(",", 1)[1]))


@pytest.fixture(scope="module")
def pages(study: Path) -> dict[str, Path]:
    """The page of each kind of head."""
    for kind in KINDS:
        done = run(head_of(study, kind), "--out", study / f"{kind}.html", "--clips", 3)
        assert done.exit_code == 0, done.output
    return {kind: study / f"{kind}.html" for kind in KINDS}


def test_pages_hold_pictures_and_sounds_that_other_readers_read(pages: dict[str, Path]) -> None:
    data = data_of(pages["protobin"])
    assert [own["name"] for own in data["classes"]] == ["high", "low"]
    prototype = data["classes"][0]["prototypes"][0]
    assert len({patch["clip"] for patch in prototype["patches"]}) == 3
    patch = prototype["patches"][0]
    samples, rate = soundfile.read(content(patch["sound"]))
    assert (rate, len(samples)) == (16_000, 16_000)
    assert imread(content(patch["spectrogram"])).shape[0] == 64
    assert imread(content(data["clips"][0]["evidence"][0]["map"])).shape == (*TOKEN_GRID, 4)
    assert len(data["clips"]) == 3
    assert "because the patch at" in data["clips"][0]["evidence"][0]["because"]
    found = data["whole"]["events"]
    assert (found["clips"], found["true"], found["seconds"]) == (6, 6, 0.16)
    assert found["chance"] < found["frame_map"] <= 1
    for path in pages.values():
        assert path.stat().st_size < 4_000_000
        assert "http" not in path.read_text(encoding="utf-8").replace("http-equiv", "")


TOKEN_GRID = (8, 8)  # of logmel: rows of 16 bands; a second has 7 columns of 160 ms, the last one padded


def test_a_spectrogram_has_high_frequencies_on_top(pages: dict[str, Path]) -> None:
    rows = {}
    for clip in data_of(pages["protobin"])["clips"]:
        levels = imread(content(clip["spectrogram"]))[..., 0]
        rows[clip["labels"][0]] = int(levels[:, 30:45].mean(axis=1).argmax())
    assert rows.get("high", 0) < rows.get("low", 63)


def test_firing_is_a_plain_count() -> None:
    random = np.random.default_rng(0)
    scores, own = random.random((9, 4)), random.random((9, 2)) > 0.5
    own[0], own[1] = True, False
    bars = torch.full((4,), 0.6)
    rates = firing(torch.from_numpy(scores), own, bars)
    for p in range(4):
        for c in range(2):
            for side, wanted in enumerate((True, False)):
                fired = [scores[n, p] > 0.6 for n in range(9) if own[n, c] == wanted]
                assert rates[side, p, c] == pytest.approx(sum(fired) / len(fired))


@pytest.mark.parametrize("kind", KINDS)
def test_logits_on_the_page_are_those_of_the_probe(study: Path, kind: str) -> None:
    from featcache.heads.report.results import read_results

    result = next(own for own in read_results([study / "results"]) if own["head"] == kind)
    ids, wanted, _ = result.scores()
    view = View(open_subject(head_of(study, kind)), clips=3, patches=1)
    assert [view.clip(int(row)).id for row in view.known.test.rows] == ids
    np.testing.assert_allclose(view.logits.numpy(), wanted, atol=2e-3)


def test_evidence_of_class_prototypes_sums_to_the_logit(study: Path) -> None:
    view = View(open_subject(head_of(study, "proto")), clips=3, patches=1)
    head = view.head
    none = torch.full_like(view.usual, 0.0)
    grid = view.known.cache.grid
    maps = evidence_of(head, view.test.scores[0], view.test.index[0], none, grid)
    silence = head.logits_from_scores(none).detach()
    torch.testing.assert_close(
        maps.sum(dim=(1, 2)), (view.logits[0] - silence).detach(), atol=1e-4, rtol=1e-4
    )
    assert class_weights(head).shape == (2, len(head.prototypes))


def test_the_mean_of_activations_is_the_logit(study: Path) -> None:
    view = View(open_subject(head_of(study, "linear-mean")), clips=3, patches=1)
    cache, row = view.known.cache, [int(view.known.test.rows[0])]
    valid = cache.mask(row)
    head = view.subject.head
    maps = activation(head, cache.tokens(row), valid)[0]
    # Tokens are float16 and the stored mean is not: what is summed is far larger than what is left of it.
    summed = float((head.classify.weight.detach().abs() @ cache.mean(row)[0].abs()).max())
    torch.testing.assert_close(maps[:, valid[0]].mean(dim=1), view.logits[0], atol=2**-11 * summed, rtol=0)


@pytest.mark.parametrize("name", ["mhca", "ep", "simpool", "abmilp"])
def test_attention_sums_to_one_and_leaves_padding_out(name: str) -> None:
    torch.manual_seed(0)
    options = {"num_queries": 4} if name == "ep" else {}
    head = build_head(HEADS[name], dim=16, num_classes=3, **options).eval()
    tokens, valid = torch.randn(2, 12, 16), torch.arange(12) < torch.tensor([[12], [7]])
    weights = attention(head, tokens, valid)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    assert (weights[1, 7:] == 0).all()
    assert as_grid(weights, (2, 6))[0, 1, 3] == weights[0, 3 * 2 + 1]


def test_without_audio_the_maps_are_shown_and_a_new_place_is_found(study: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    shutil.move(study / "audio", away)
    try:
        gone = run(head_of(study, "protobin"), "--out", tmp_path / "gone.html", "--clips", 2)
        assert gone.exit_code == 0, gone.output
        assert "is not on this machine" in gone.stderr
        clip = data_of(tmp_path / "gone.html")["clips"][0]
        assert "sound" not in clip
        assert clip["evidence"][0]["map"]
        root = f"{study / 'audio'}={away}"
        found = run(head_of(study, "mhca"), "--out", tmp_path / "found.html", "--audio-root", root)
        assert found.exit_code == 0, found.output
        assert data_of(tmp_path / "found.html")["clips"][0]["sound"]
    finally:
        shutil.move(away, study / "audio")


def test_without_its_cache_the_head_speaks_for_itself(study: Path, tmp_path: Path) -> None:
    shutil.move(study / "logmel.zarr", tmp_path / "elsewhere.zarr")
    try:
        done = run(head_of(study, "protobin"), "--out", tmp_path / "alone.html")
        named = run(
            head_of(study, "protobin"), "--manifest", study / "clips.csv", "--out", tmp_path / "no.html"
        )
    finally:
        shutil.move(tmp_path / "elsewhere.zarr", study / "logmel.zarr")
    assert done.exit_code == 0, done.output
    assert "no token cache at" in done.stderr
    data = data_of(tmp_path / "alone.html")
    assert data["clips"] == []
    assert data["whole"]["prototypes"] == 40
    assert named.exit_code == 2
    assert not (tmp_path / "no.html").exists()


def test_a_results_folder_means_its_best_prototypes(study: Path) -> None:
    assert open_subject(study / "results").head.config["name"] in ("protobin", "proto")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{s}/none.safetensors"], "neither a head nor results at"),
        (["{s}/clips.csv"], "clips.csv"),
        (["{h}", "--class", "hihg"], "did you mean 'high'?"),
        (["{h}", "--audio-root", "/nowhere=/data"], "lies in /nowhere"),
        (["{h}", "--audio-root", "nowhere"], "is not OLD=NEW"),
        (["{h}", "--out", "{s}/clips.csv/page.html"], "cannot be a folder"),
        (["{h}", "--out", "{s}/audio"], "is a folder; name a file in it"),
        (["{h}", "--manifest", "{s}/none.csv"], "none.csv"),
    ],
)
def test_bad_input_is_one_line(study: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    own = [text.format(s=study, h=head_of(study, "protobin")) for text in arguments]
    done = run(*own, *([] if "--out" in own else ["--out", tmp_path / "page.html"]))
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_page_too_large_says_how_to_make_it_smaller(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "MOST_BYTES", 100_000)
    done = run(head_of(study, "protobin"), "--out", tmp_path / "page.html")
    assert done.exit_code == 2
    assert "smaller with fewer clips (now 12)" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_head_without_a_map_is_refused(study: Path, tmp_path: Path) -> None:
    from featcache.heads import load_config, save

    head = build_head(HEADS["meanmax"], dim=load(head_of(study, "mhca")).config["dim"], num_classes=2)
    save(head, tmp_path / "head.safetensors", config=load_config(head_of(study, "mhca")))
    done = run(tmp_path / "head.safetensors", "--out", tmp_path / "page.html")
    assert done.exit_code == 2
    assert "has no map of its tokens" in done.stderr


def test_names_cannot_end_the_script() -> None:
    text = page_module.page({"title": "</script><script>alert(1)</script>", "nan": float("nan")}).decode()
    assert "</script><script>alert" not in text
    assert '"nan": null' in text


@pytest.fixture
def browser(pages: dict[str, Path], tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    if CHROMIUM is None:
        pytest.skip("no chromium here (Debian's package chromium)")
    opened: list[Browser] = []

    def open_page(kind: str, **more: Any) -> Browser:
        opened.append(Browser(pages[kind], tmp_path / f"profile{len(opened)}", **more))
        return opened[-1]

    yield open_page
    for each in opened:
        each.close()


def test_a_browser_plays_filters_and_finds_no_fault(browser: Callable[..., Browser], tmp_path: Path) -> None:
    own = browser("protobin", width=375, dark=True)
    assert own.ask("document.documentElement.scrollWidth") <= 375
    assert own.ask("getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 22)"
    assert own.ask("[...document.images].every((image) => image.alt && image.naturalWidth > 0)")
    assert own.ask("[...document.querySelectorAll('button')].every((own) => own.ariaLabel)")
    before = own.ask("document.querySelectorAll('[data-classes]:not([hidden])').length")
    own.ask("filter.value = 'low'; filter.dispatchEvent(new Event('change'))")
    left = own.ask(
        "[...document.querySelectorAll('[data-classes]:not([hidden])')].map((c) => c.dataset.classes)"
    )
    assert 0 < len(left) < before
    assert all("low" in json.loads(names) for names in left)
    assert own.ask("document.querySelector('#body-whole table').rows.length") == 3
    own.ask("document.querySelector('article:not([hidden]) button').click()")
    ended = "new Promise((done) => player.addEventListener('ended', () => done(player.currentTime)))"
    assert own.ask(ended) == pytest.approx(1.0, abs=0.1)
    own.screenshot(tmp_path / "page.png")
    assert imread(tmp_path / "page.png").shape[1] == 375
    assert own.errors == []
