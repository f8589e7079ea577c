"""Caches in buckets and on far disks: nothing lost, nothing wrong, whatever requests do."""

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner

from featcache.cache import TokenCache
from featcache.cache.format.ledger import entry_file, read_ledger
from featcache.cache.remote import hub, store
from featcache.cache.remote.pull import pull
from featcache.cache.remote.push import push
from featcache.cache.remote.stage import stage
from featcache.cache.verify import verify_cache
from featcache.cli.main import featcache
from featcache.errors import CacheError, InputError, MismatchError, MissingError

Make = Callable[..., TokenCache]


@pytest.fixture
def bucket() -> Iterator[str]:
    """An address in memory."""
    yield "memory://bucket/a.zarr"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FIRST_WAIT", 0.001)


def same(one: Path, other: Path) -> bool:
    """Whether two caches hold the same tokens, vectors and lengths of the same clips."""
    first, second = TokenCache.open(one), TokenCache.open(other)
    rows = [second.find([name])[0] for name in first.ids]
    return (
        len(first) == len(second)
        and all(
            np.array_equal(first.tokens(range(len(first)), layer), second.tokens(rows, layer))
            and np.array_equal(first.mean(range(len(first)), layer), second.mean(rows, layer))
            for layer in second.layers
        )
        and np.array_equal(first.num_valid[: len(first)], second.num_valid[rows])
    )


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_cache_goes_to_a_bucket_and_comes_back(
    make_cache: Make, tmp_path: Path, bucket: str, dtype: str
) -> None:
    cache = make_cache(10, dtype=dtype)
    there = push(cache.path, bucket)
    assert (there.shards, there.present, there.clips) == (3, 0, 10)
    assert push(cache.path, bucket).shards == 0
    back = pull(bucket, tmp_path / "b.zarr")
    assert (back.shards, back.clips, back.complete) == (3, 10, True)
    assert back.num_bytes == there.num_bytes > 0
    assert verify_cache(tmp_path / "b.zarr") == []
    assert same(cache.path, tmp_path / "b.zarr")
    assert pull(bucket, tmp_path / "b.zarr").present == 3


def test_it_is_a_zarr_group_where_it_lies(make_cache: Make, tmp_path: Path) -> None:
    import zarr

    cache = make_cache(10)
    push(cache.path, tmp_path / "far/b.zarr")
    group = zarr.open_group(tmp_path / "far/b.zarr", mode="r")
    np.testing.assert_array_equal(
        group["tokens/12"][:10], np.stack([cache.tokens([row])[0] for row in range(10)])
    )


def test_new_shards_are_added_both_ways(make_cache: Make, clips: Any, tmp_path: Path, bucket: str) -> None:
    cache = make_cache(8)
    push(cache.path, bucket)
    pull(bucket, tmp_path / "b.zarr")
    clips.write(cache.path, range(14))
    assert push(cache.path, bucket).shards == 2
    assert pull(bucket, tmp_path / "b.zarr").shards == 2
    assert same(cache.path, tmp_path / "b.zarr")
    # What came can be grown like any cache.
    clips.write(tmp_path / "b.zarr", range(20))
    assert verify_cache(tmp_path / "b.zarr") == []


def test_only_the_shards_and_layers_that_are_wanted_come(
    make_cache: Make, tmp_path: Path, bucket: str
) -> None:
    cache = make_cache(12)
    push(cache.path, bucket)
    part = pull(bucket, tmp_path / "b.zarr", ids=["clip5", "clip6", "nobody"], layers="last")
    assert (part.shards, part.clips, part.complete) == (1, 4, False)
    own = TokenCache.open(tmp_path / "b.zarr")
    assert own.layers == (12,)
    assert list(own.ids) == ["clip4", "clip5", "clip6", "clip7"]
    assert not (tmp_path / "b.zarr/tokens/3").exists()
    assert verify_cache(tmp_path / "b.zarr") == []
    np.testing.assert_array_equal(own.tokens([1], 12), cache.tokens([5], 12))
    more = pull(bucket, tmp_path / "b.zarr", ids=["clip0"], layers=[12])
    assert (more.shards, more.clips) == (1, 8)
    with pytest.raises(InputError, match="none of 1 clips is in"):
        pull(bucket, tmp_path / "c.zarr", ids=["nobody"])
    with pytest.raises(InputError, match="no layer named '7'"):
        pull(bucket, tmp_path / "d.zarr", layers=[7])


def test_a_stopped_push_shows_whole_shards_only_and_goes_on(
    make_cache: Make, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, calls = make_cache(16), [0]
    original = store.FarStore.put

    def put(self: store.FarStore, path: Path, name: str) -> None:
        calls[0] += 1
        if calls[0] >= 0:  # the thread may have begun the next shard when the first one's error is seen
            raise KeyboardInterrupt
        original(self, path, name)

    with monkeypatch.context() as patch:
        patch.setattr(store.FarStore, "put", put)
        for stop in (1, 20):  # files: the second stop comes after a whole shard
            calls[0] = -stop
            with pytest.raises(KeyboardInterrupt):
                push(cache.path, bucket, workers=1)
    assert push(cache.path, bucket).present > 0
    pull(bucket, tmp_path / "b.zarr")
    assert same(cache.path, tmp_path / "b.zarr")


def test_a_stopped_pull_is_a_cache_and_goes_on(
    make_cache: Make, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(16)
    push(cache.path, bucket)
    original, calls = store.FarStore.get, [0]

    def get(self: store.FarStore, name: str, path: Path) -> None:
        calls[0] += 1
        if calls[0] > 12:
            raise KeyboardInterrupt
        original(self, name, path)

    with monkeypatch.context() as patch:
        patch.setattr(store.FarStore, "get", get)
        with pytest.raises(KeyboardInterrupt):
            pull(bucket, tmp_path / "b.zarr", workers=1)
    assert len(TokenCache.open(tmp_path / "b.zarr")) == 4
    assert not list((tmp_path / "b.zarr").rglob("*.partial"))
    assert pull(bucket, tmp_path / "b.zarr").shards == 3
    assert same(cache.path, tmp_path / "b.zarr")


def test_damage_is_never_copied(make_cache: Make, tmp_path: Path, bucket: str) -> None:
    cache = make_cache(8)
    push(cache.path, bucket)
    memory = fsspec.filesystem("memory")
    (name,) = (own for own in memory.find("/bucket") if "tokens/12/c.1." in own)
    raw = bytearray(memory.cat_file(name))
    raw[7] ^= 1
    memory.pipe_file(name, bytes(raw))
    with pytest.raises(CacheError, match="is not as it was written: its checksum is another"):
        pull(bucket, tmp_path / "b.zarr")
    assert len(TokenCache.open(tmp_path / "b.zarr")) == 4
    (file,) = (cache.path / "tokens/3").glob("c.0.*")
    file.write_bytes(b"x" + file.read_bytes()[1:])
    with pytest.raises(CacheError, match=r"is not as it was written; see 'featcache cache verify"):
        push(cache.path, "memory://bucket/other.zarr")


def test_caches_that_were_filled_apart_are_not_mixed(
    make_cache: Make, clips: Any, tmp_path: Path, bucket: str
) -> None:
    push(make_cache(8).path, bucket)
    other = make_cache(8, name="b.zarr", fingerprint={"encoder": "other"})
    with pytest.raises(MismatchError, match=r"fingerprint\.encoder"):
        push(other.path, bucket)
    clips.write(tmp_path / "c.zarr", range(1, 9))
    with pytest.raises(MismatchError, match="were filled apart: shard 0 differs"):
        push(tmp_path / "c.zarr", bucket)
    with pytest.raises(MismatchError, match=r"fingerprint\.encoder"):
        pull(bucket, other.path)


def test_a_hostile_place_names_no_file_outside(make_cache: Make, tmp_path: Path, bucket: str) -> None:
    cache = make_cache(8)
    push(cache.path, bucket)
    memory, entry = fsspec.filesystem("memory"), next(read_ledger(cache.path))
    name = f"/bucket/a.zarr/{entry_file(entry.shard)}"
    text = memory.cat_file(name).decode().replace("tokens/12/c.0", "../../evil/c.0")
    memory.pipe_file(name, text.encode())
    pull(bucket, tmp_path / "deep/b.zarr")
    assert not (tmp_path / "evil").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "deep"]


def test_what_is_not_there_or_cannot_be_is_one_line(make_cache: Make, tmp_path: Path, bucket: str) -> None:
    with pytest.raises(MissingError, match="no token cache at memory://bucket"):
        pull(bucket, tmp_path / "b.zarr")
    assert not (tmp_path / "b.zarr").exists()
    with pytest.raises(InputError, match="is no address that can be reached"):
        push(make_cache(4).path, "ftps3://x/y")
    with pytest.raises(InputError, match=r"pip install 'featcache\[gs\]'"):
        push(tmp_path / "a.zarr", "gs://x/y")
    result = CliRunner().invoke(featcache, ["cache", "pull", bucket, str(tmp_path / "b.zarr")])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


def test_the_commands_say_what_they_did(make_cache: Make, tmp_path: Path, bucket: str) -> None:
    cache = make_cache(10)
    ask = CliRunner().invoke
    pushed = ask(featcache, ["cache", "push", str(cache.path), bucket])
    assert "3 shards copied" in pushed.stdout
    (tmp_path / "few.csv").write_text("path,labels,id\na.wav,x,clip1\n")
    pulled = ask(featcache, ["cache", "pull", bucket, str(tmp_path / "b.zarr"),
                             "--manifest", str(tmp_path / "few.csv"), "--layers", "3", "--json"])  # fmt: skip
    assert '"shards": 1' in pulled.stdout, pulled.output
    assert '"complete": false' in pulled.stdout


def test_a_staged_cache_is_brought_once(make_cache: Make, tmp_path: Path) -> None:
    cache = make_cache(8)
    path, first = stage(cache.path, tmp_path / "ssd")
    assert first.shards == 2
    assert stage(cache.path, tmp_path / "ssd")[1].present == 2
    assert same(cache.path, path)
    assert stage(cache.path, tmp_path / "ssd", layers="last")[0] != path


def test_a_cache_is_published_with_a_page(make_cache: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    seen: dict[str, Any] = {}

    class Api:
        def create_repo(self, name: str, **rest: Any) -> None:
            seen["repo"] = name, rest["repo_type"]

        def file_exists(self, name: str, file: str, **rest: Any) -> bool:
            return False

        def upload_file(self, *, path_or_fileobj: bytes, path_in_repo: str, **rest: Any) -> None:
            seen[path_in_repo] = path_or_fileobj.decode()

        def upload_folder(self, *, folder_path: Path, ignore_patterns: list[str], **rest: Any) -> None:
            seen["folder"] = folder_path, ignore_patterns

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    cache = make_cache(8)
    assert push(cache.path, "hf-hub:me/tokens").clips == 8
    assert seen["repo"] == ("me/tokens", "dataset")
    assert "lock" in seen["folder"][1]
    for words in ("`fake`", "8 clips", "2 x 3", "featcache cache pull hf-hub:me/tokens", '"digest": "a1"'):
        assert words in seen["README.md"], words
    with pytest.raises(InputError, match="must be hf-hub:OWNER/NAME"):
        push(cache.path, "hf-hub:me")
    assert hub.is_hub("hf://datasets/me/tokens")


def test_probe_brings_what_it_needs_near(
    make_tokens: Callable[..., tuple[Path, Path]], tmp_path: Path, bucket: str
) -> None:
    cache, manifest = make_tokens(clips=48, layers=(1, 2))
    push(cache, bucket)
    shutil.rmtree(cache)
    arguments = ["probe", bucket, "--manifest", str(manifest), "--head", "linear", "--epochs", "1", "--seeds",
                 "1", "--no-solved", "--out", str(tmp_path / "out"), "--stage",
                 str(tmp_path / "ssd")]  # fmt: skip
    first = CliRunner().invoke(featcache, arguments)
    assert first.exit_code == 0, first.output
    assert "1 shards" in first.stdout
    (near,) = (tmp_path / "ssd").iterdir()
    assert TokenCache.open(near).layers == (2,)
    again = CliRunner().invoke(featcache, arguments)
    assert "0 shards (0.0 MB) brought" in again.stdout


def settings(manifest: Path, out: str, scratch: Path) -> list[str]:
    return ["extract", str(manifest), "--out", out, "--encoder", "logmel", "--clip-seconds", "1",
            "--shard-clips", "4", "--batch-size", "2", "--workers", "1", "--scratch",
            str(scratch)]  # fmt: skip


def test_extraction_into_a_bucket_goes_on_where_it_stopped(
    make_manifest: Callable[..., Path], tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.extraction.runner import Runner

    monkeypatch.setattr("featcache.extraction.upload.PAUSE", 0.002)  # shards leave while others are made
    manifest, scratch = make_manifest(14), tmp_path / "scratch"
    (tmp_path / "audio/5.wav").write_bytes(b"no audio")
    ask, original, calls = CliRunner().invoke, Runner.encode, [0]
    plain = settings(manifest, str(tmp_path / "plain.zarr"), scratch)
    assert ask(featcache, plain).exit_code == 2  # one clip failed

    def encode(self: Runner, features: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5:
            raise KeyboardInterrupt
        return original(self, features)

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "encode", encode)
        stopped = ask(featcache, settings(manifest, bucket, scratch))
    assert stopped.exit_code == 130, stopped.output
    shutil.rmtree(scratch)  # another machine goes on
    calls[0] = -100
    with monkeypatch.context() as patch:
        patch.setattr(Runner, "encode", encode)
        done = ask(featcache, settings(manifest, bucket, scratch))
    assert done.exit_code == 2, done.output
    assert "already there" in done.stdout
    assert calls[0] + 100 < 7  # what was stored was not encoded again
    assert not list(scratch.rglob("*.zarr"))
    third = ask(featcache, settings(manifest, bucket, scratch))
    assert "0 encoded, 13 already there" in third.stdout, third.output
    pull(bucket, tmp_path / "b.zarr")
    assert verify_cache(tmp_path / "b.zarr") == []
    assert same(tmp_path / "plain.zarr", tmp_path / "b.zarr")


class Proxy(ThreadingHTTPServer):
    """Between a client and a server of S3: every so many requests one fails, or its answer is cut off."""

    daemon_threads = True

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target, self.count, self.fail, self.cut, self.spoiled = target, 0, 0, 0, 0
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *arguments: Any) -> None:
        pass

    def _pass_on(self) -> None:
        body = self._body()
        with self.server.lock:
            self.server.count += 1
            fails = self.server.fail and self.server.count % self.server.fail == 0
            cuts = self.server.cut and self.server.count % self.server.cut == 0
            self.server.spoiled += bool(fails or cuts)
        if fails:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        upstream = HTTPConnection(*self.server.target)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cuts else data)
        if cuts:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        upstream.close()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    server = Proxy(moto.get_host_and_port())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
    moto.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the clients' libraries
@pytest.mark.parametrize(("fail", "cut"), [(20, 0), (0, 11)])
def test_a_real_s3_server_that_fails_and_cuts_loses_nothing(
    proxy: Proxy, make_cache: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: int, cut: int
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_address[1]}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv(
        "AWS_MAX_ATTEMPTS", "1"
    )  # what fails is tried again here, not by botocore after a while
    proxy.fail = proxy.cut = proxy.spoiled = 0
    fsspec.filesystem("s3").mkdir(f"bucket{fail}{cut}")
    proxy.fail, proxy.cut = fail, cut
    cache, address = make_cache(8), f"s3://bucket{fail}{cut}/caches/a.zarr"
    assert push(cache.path, address, workers=4).shards == 2
    assert pull(address, tmp_path / "b.zarr", workers=4).shards == 2
    assert proxy.spoiled > 2
    assert verify_cache(tmp_path / "b.zarr") == []
    assert same(cache.path, tmp_path / "b.zarr")
