"""Files and packages of users, encoders and heads alike: run once, again when changed, told in one line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from featcache.cli.main import featcache
from featcache.encoders import encoder_spec
from featcache.errors import InputError, MissingError
from featcache.heads import Linear, head_spec
from featcache.plugins import from_file, source_digest

LOOK_UP: dict[str, Callable[[str], Any]] = {"encoder": encoder_spec, "head": head_spec}

BROKEN = {
    "syntax": ("class Mine(\n", r"mine.py cannot be run: SyntaxError in line 1: .*never closed; mend it"),
    "indent": ("x = 1\n  y = 2\n", r"IndentationError in line 2: unexpected indent"),
    "raises": ("x = 1\n\nx / 0\n", r"ZeroDivisionError in line 3: division by zero; mend it"),
    "deeper": ("def f():\n    raise ValueError('a\\nb')\n\nf()\n", r"ValueError in line 2: a; mend it"),
    "import": ("import nothing_of_that_name\n", r"ModuleNotFoundError in line 1: No module named 'noth"),
    "exit": ("import sys\nsys.exit(3)\n", r"SystemExit in line 2: 3; mend it"),
    "silent": ("raise KeyError\n", r"KeyError in line 1; mend it"),
    "bytes": ("x = '\0'\n", r"cannot be run: (SyntaxError|ValueError).*null bytes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOOK_UP)
@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_cannot_be_run_is_one_line_that_says_where(kind: str, case: str, tmp_path: Path) -> None:
    text, message = BROKEN[case]
    path = tmp_path / "mine.py"
    path.write_text(text)
    modules = set(sys.modules)
    with pytest.raises(InputError, match=message) as caught:
        LOOK_UP[kind](f"{path}:Mine")
    assert "\n" not in str(caught.value)
    assert set(sys.modules) == modules


@pytest.mark.parametrize("kind", LOOK_UP)
def test_a_file_that_is_not_there_and_a_name_that_is_not_in_it_are_said(kind: str, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=f"no {kind} file at nowhere.py; write path/to/file.py:Class"):
        LOOK_UP[kind]("nowhere.py:Mine")
    path = tmp_path / "mine.py"
    path.write_text("from pathlib import Path\nclass One: pass\nclass Two: pass\n")
    with pytest.raises(InputError, match=r"mine.py has no Mine; it has: One, Two$"):
        LOOK_UP[kind](f"{path}:Mine")
    with pytest.raises(InputError, match=r"mine.py has no name after the colon; it has: One, Two$"):
        LOOK_UP[kind](f"{path}:")
    path.write_text("x = 1\n")
    with pytest.raises(InputError, match=r"mine.py has no Mine; it has: no class$"):
        LOOK_UP[kind](f"{path}:Mine")


@pytest.mark.parametrize("kind", LOOK_UP)
def test_an_installed_package_that_cannot_be_imported_is_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = tmp_path / "theirs-1.0.dist-info"
    entry.mkdir()
    (entry / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (entry / "entry_points.txt").write_text(f"[featcache.{kind}s]\ntheirs = nothing_of_that_name:Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    message = (
        rf"^nothing_of_that_name:Mine, the entry point 'theirs' of featcache.{kind}s, cannot be imported "
        r"\(ModuleNotFoundError: No module named 'nothing_of_that_name'\); mend or uninstall its package$"
    )
    with pytest.raises(InputError, match=message):
        LOOK_UP[kind]("theirs")


@pytest.mark.parametrize("kind", LOOK_UP)
def test_the_command_line_shows_one_line_and_no_traceback(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    for text in ("class Mine(\n", "1 / 0\n", "Mine = 3\n", ""):
        path.write_text(text)
        done = CliRunner().invoke(featcache, [f"{kind}s", f"{path}:Mine"])
        assert done.exit_code == 2, done.output
        assert done.output.startswith("Error: ")
        assert len(done.output.splitlines()) == 1


def test_a_file_is_run_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    path, log = tmp_path / "mine.py", tmp_path / "log"
    text = f"with open({str(log)!r}, 'a') as log: log.write('x')\nclass Mine: size = 1\n"
    path.write_text(text)
    first = from_file(f"{path}:Mine", "head")
    assert from_file(f"{path}:Mine", "head") == first
    assert log.read_text() == "x"
    path.write_text(text.replace("size = 1", "size = 2"))  # of the same length, and in the same second
    kept = from_file(f"{path}:Mine", "head", again=False)
    assert (kept.target.size, kept.digest) == (1, first.digest)
    changed = from_file(f"{path}:Mine", "head")
    assert changed.target.size == 2
    assert changed.digest != first.digest
    assert log.read_text() == "xx"
    assert not list(tmp_path.rglob("*.pyc"))


def test_a_change_that_cannot_be_run_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("class Mine: size = 1\n")
    first = from_file(f"{path}:Mine", "head")
    path.write_text("class Mine(\n")
    with pytest.raises(InputError, match="SyntaxError in line 1"):
        from_file(f"{path}:Mine", "head")
    assert from_file(f"{path}:Mine", "head", again=False) == first
    assert sys.modules[first.target.__module__].Mine is first.target


def test_files_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(f"class Mine: place = {folder!r}\n")
    one, two = (from_file(f"{tmp_path}/{folder}/mine.py:Mine", "head").target for folder in ("one", "two"))
    assert (one.place, two.place) == ("one", "two")
    assert one.__module__ != two.__module__


def test_the_source_of_a_class_is_its_own_and_that_of_the_users_classes_it_derives_from(
    tmp_path: Path,
) -> None:
    def digest(size: int) -> str:
        path = tmp_path / f"mine{size}.py"
        path.write_text(
            "from featcache.heads import Linear\n"
            f"class Base(Linear):\n    size = {size}\n"
            "class Mine(Base):\n    reads = 'cls'\n"
        )
        return source_digest(from_file(f"{path}:Mine", "head").target)

    assert digest(1)
    assert digest(1) == digest(1) != digest(2)
    assert source_digest(Linear) == ""  # by featcache's version
    assert source_digest(type("Made", (), {"__module__": "of_nothing"})) == ""
