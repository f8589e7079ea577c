"""A page about a trained head: what it says is what the head computes, and a browser shows it."""

import base64
import io
import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from featcache.cli.main import featcache
from featcache.errors import InputError, MismatchError
from featcache.extraction.extract import extract
from featcache.heads import build_head, load, probe
from featcache.heads.explain.explain import explain
from featcache.heads.explain.learned import distinct, prototypes_of, scores_of
from featcache.heads.explain.opened import open_head
from featcache.heads.explain.tokenmaps import activation_maps, attention_map, mean_maps

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HEADS = ["protobin", "mhca", "linear", "tfmean"]


class Trained:
    """Heads that tell a low from a high tone, which sounds in the second half of a clip."""

    def __init__(self, folder: Path) -> None:
        self.folder, random = folder, np.random.default_rng(0)
        lines, events = ["path,labels,split,id"], ["id,start,end,label"]
        (folder / "audio").mkdir()
        for index in range(16):
            time, kind = np.arange(32_000) / 16_000, index % 2
            tone = np.where(time > 1, 0.3 * np.sin(2 * np.pi * (400, 3000)[kind] * time), 0)
            noise = 0.02 * random.standard_normal(len(time))
            soundfile.write(folder / f"audio/{index}.wav", (tone + noise).astype(np.float32), 16_000)
            split = ("train", "train", "valid", "test")[index // 2 % 4]
            label = ("low", "<b>high</b>")[kind]
            lines.append(f"audio/{index}.wav,{label},{split},clip{index}")
            events.append(f"clip{index},1,2,{label}")
        self.manifest = folder / "clips.csv"
        self.manifest.write_text("\n".join(lines) + "\n")
        (folder / "clips.events.csv").write_text("\n".join(events) + "\n")
        extract(self.manifest, out=folder / "c.zarr", encoder="logmel", clip_seconds=2.0)
        results = probe(
            folder / "c.zarr", self.manifest, heads=HEADS, seeds=1, solved=False, epochs=20, lr=0.02,
            out=folder / "out",
        )  # fmt: skip
        self.heads = {result["head"]: result.file("head") for result in results}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("explain"))


def page_of(trained: Trained, tmp_path: Path, head: str = "protobin", **options: Any) -> str:
    explain(trained.heads[head], out=tmp_path / "page.html", **options)
    return (tmp_path / "page.html").read_text("utf-8")


def test_a_page_carries_all_that_it_shows(trained: Trained, tmp_path: Path) -> None:
    page = page_of(trained, tmp_path)
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert "http" not in re.sub(r'"data:[^"]*"', "", page)
    assert "<b>high</b>" not in page  # labels are text, whatever they hold
    assert "&lt;b&gt;high" in page
    sounds = [base64.b64decode(own.split(",")[1]) for own in addresses if own.startswith("data:audio")]
    assert soundfile.info(io.BytesIO(sounds[0])).samplerate == 16_000
    for words in ("The whole head", "fires on", "Pointing game", "looks like its prototypes", "by chance"):
        assert words in page
    assert len(page) < 3e6


@pytest.mark.parametrize(("head", "words"), [("mhca", "attention, the same"), ("linear", "class activation")])
def test_other_heads_have_maps_too(trained: Trained, tmp_path: Path, head: str, words: str) -> None:
    page = page_of(trained, tmp_path, head)
    assert words in page
    assert page.count("<h3>") == 4  # the test clips


def test_patches_are_the_most_alike_of_their_recordings(trained: Trained) -> None:
    opened = open_head(trained.heads["protobin"])
    assert opened.cache is not None
    assert opened.column_seconds == pytest.approx(0.16)
    train, test = opened.ids("train"), opened.ids("test")
    assert (len(train), len(test)) == (8, 4)
    scores, winners = scores_of(opened, train)
    found, count = prototypes_of(
        opened, 0, (train, scores, winners), (test, scores_of(opened, test)[0]), most=2, patches=3
    )
    assert 1 <= count <= opened.head.classify.weight.shape[1]
    head = load(trained.heads["protobin"])
    own = found[0]
    prototype = head.prototypes_for_match().detach()[own.number]
    by_hand = {}
    for name in train:  # the cosine of every token that is audio, by a plain loop
        row = opened.rows[name]
        tokens, _, _ = head.standardized(opened.cache.tokens([row]).float(), None, None)
        valid = int(opened.cache.num_valid[row])
        cosines = torch.nn.functional.cosine_similarity(tokens[0, :valid], prototype[None], dim=-1)
        by_hand[name] = float(cosines.max()), int(cosines.argmax())
    best = sorted(by_hand, key=lambda name: -by_hand[name][0])[:3]
    assert [patch.clip for patch in own.patches] == best
    for patch in own.patches:
        assert patch.score == pytest.approx(by_hand[patch.clip][0], abs=1e-3)
        assert patch.column * opened.cache.grid[0] + patch.row == by_hand[patch.clip][1]
    level = np.quantile([by_hand[name][0] for name in train if "low" in opened.clips[name].labels], 0.95)
    high = [by_hand[name][0] for name in train if "low" not in opened.clips[name].labels]
    assert own.fires["train own"] == pytest.approx(np.mean(np.array(high) > level), abs=0.3)
    assert own.weight == pytest.approx(float(head.classify.weight[0].detach().max()))


def test_maps_are_the_heads_own_numbers() -> None:
    torch.manual_seed(0)
    tokens, valid = torch.randn(1, 12, 8), torch.arange(12)[None] < 8
    linear: Any = build_head("linear", 8, 3).eval()
    maps = mean_maps(linear, tokens, valid, (3, 4), [0, 2])
    logits = linear(None, tokens[valid].mean(dim=0, keepdim=True), None)[0] - linear.classify.bias
    torch.testing.assert_close(maps.sum(dim=(1, 2)), logits[[0, 2]])
    assert maps[:, :, 3].abs().max() == 0  # padding, the last columns
    torch.testing.assert_close(maps[0, 1, 2], tokens[0, 7] @ linear.classify.weight[0] / 8)
    for name, options in (("mhca", {}), ("ep", {"num_queries": 4}), ("simpool", {}), ("abmilp", {})):
        attention = attention_map(build_head(name, 8, 3, **options).eval(), (tokens, None, valid), (3, 4))
        assert float(attention.sum()) == pytest.approx(1, abs=1e-5)
        assert float(attention[:, 3].max()) < 1e-6
    tfmean = build_head("tfmean", 8, 3, grid=(3, 4)).eval()
    assert activation_maps(tfmean, (tokens, None, valid), (3, 4), [1]).shape == (1, 3, 4)
    assert distinct(torch.eye(4).repeat(2, 1), list(range(8))) == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_what_is_gone_is_said_and_the_rest_is_shown(trained: Trained, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(trained.folder, moved)
    text = (moved / "clips.csv").read_text().replace("audio/", str(tmp_path / "gone") + "/")
    (moved / "clips.csv").write_text(text)
    page = page_of(trained, tmp_path, manifest=moved / "clips.csv")
    assert "The audio of 16 of 16 clips is not where the manifest says" in page
    assert "data:audio" not in page
    assert "its audio is not here" in page
    roots = {str(tmp_path / "gone"): str(trained.folder / "audio")}
    back = page_of(trained, tmp_path, manifest=moved / "clips.csv", audio_roots=roots)
    assert "data:audio" in back
    shutil.move(trained.folder / "c.zarr", trained.folder / "d.zarr")
    try:
        page = page_of(trained, tmp_path)
        assert "The cache is not here" in page
        assert "The whole head" in page
        assert "data:audio" in page_of(trained, tmp_path, cache=trained.folder / "d.zarr")
    finally:
        shutil.move(trained.folder / "d.zarr", trained.folder / "c.zarr")


def test_bad_input_is_one_line(trained: Trained, tmp_path: Path) -> None:
    def ask(*arguments: object) -> str:
        result = CliRunner().invoke(featcache, ["explain", *map(str, arguments)])
        assert result.exit_code == 2, result.output
        assert len(result.stderr.strip().splitlines()) == 1
        return result.stderr

    head, out = trained.heads["protobin"], tmp_path / "page.html"
    assert "show fewer clips, classes" in ask(head, "--out", out, "--max-mb", 0.1)
    assert "is a folder; name a file in it" in ask(head, "--out", tmp_path)
    assert "no saved head at" in ask(tmp_path / "nothing.safetensors", "--out", out)
    (tmp_path / "empty").mkdir()
    assert ask(tmp_path / "empty", "--out", out)
    assert not out.exists()
    extract(trained.manifest, out=tmp_path / "other.zarr", encoder="logmel", clip_seconds=1.0)
    with pytest.raises(MismatchError, match="holds other tokens"):
        explain(head, out=out, cache=tmp_path / "other.zarr")
    with pytest.raises(InputError, match="clips"):
        explain(head, out=out, clips=0)


def test_the_command_takes_a_folder_of_results(trained: Trained, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        featcache, ["explain", str(trained.folder / "out"), "--out", str(tmp_path / "p.html")]
    )
    assert result.exit_code == 0, result.output
    assert "4 clips; open it in a browser" in result.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian's package chromium)")
def test_a_browser_shows_plays_and_filters(trained: Trained, tmp_path: Path) -> None:
    page = page_of(trained, tmp_path)
    said: SimpleQueue[str] = SimpleQueue()

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    script = """<script>
const errors = []; addEventListener("error", (event) => errors.push(event.message));
addEventListener("load", async () => {
  const sound = document.querySelector("audio"); sound.muted = true;
  await sound.play().catch((error) => errors.push(String(error)));
  const all = [...document.querySelectorAll("[data-classes]")];
  const select = document.getElementById("filter"); select.value = "low";
  select.dispatchEvent(new Event("change"));
  const shown = all.filter((part) => !part.hidden).length, duration = sound.duration;
  const broken = [...document.images].filter((image) => !image.complete || !image.naturalWidth).length;
  const wide = document.documentElement.scrollWidth > innerWidth;
  const seen = JSON.stringify({errors, duration, all: all.length, shown, broken, wide});
  fetch("ADDRESS", {method: "POST", mode: "no-cors", body: seen});
});</script>"""
    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        script = script.replace("ADDRESS", f"http://127.0.0.1:{server.server_address[1]}/")
        (tmp_path / "page.html").write_text(page.replace("</body>", script + "</body>"), "utf-8")
        browser = subprocess.Popen(
            [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--autoplay-policy=no-user-gesture-required", f"--user-data-dir={tmp_path / 'profile'}",
             "--remote-debugging-port=0", "--window-size=500,900", (tmp_path / "page.html").as_uri()],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            seen = json.loads(said.get(timeout=60))
        finally:
            browser.terminate()
            browser.wait(timeout=20)
            server.shutdown()
    assert seen["errors"] == []
    assert seen["duration"] > 0.5
    assert 0 < seen["shown"] < seen["all"]
    assert seen["broken"] == 0
    assert not seen["wide"]
