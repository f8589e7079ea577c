"""Someone else's head: from a file, from an installed package, from a notebook; trained, saved and loaded."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from featcache.cache import TokenCache
from featcache.cli.main import featcache
from featcache.errors import InputError
from featcache.heads import HEADS, Linear, build_head, head_spec, load, register_head
from featcache.heads.options import split_options
from featcache.heads.probing.probe import probe
from featcache.heads.registry import parse_choice
from featcache.heads.report.results import read_results
from featcache.testing import check_head

Make = Callable[..., tuple[Path, Path]]
DOCS = Path(__file__).parents[1] / "docs"
QUICK = {"epochs": 2, "batch_size": 16, "seeds": 1, "solved": False}


def example() -> str:
    """The complete example of the page for authors."""
    page = (DOCS / "adding-a-head.md").read_text(encoding="utf-8")
    code, *_ = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return str(code)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_head.py"
    path.write_text(example())
    return path


@pytest.fixture
def package(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example as an installed package offers it, under the name ``theirs``."""
    metadata = tmp_path / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[featcache.heads]\ntheirs = my_head:MyHead\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_head", raising=False)


def run(*words: object) -> Result:
    return CliRunner().invoke(featcache, [str(word) for word in words])


def test_the_example_of_the_docs_is_short_and_passes_the_check(file: Path) -> None:
    assert len(example().splitlines()) < 40
    check_head(f"{file}:MyHead")
    check_head(f"{file}:MyHead", dim=24, sharpness=3.0, dropout=0.5)


# ---- by file --------------------------------------------------------------------------------


def test_the_spec_of_a_file_is_read_off_its_class(file: Path) -> None:
    spec = head_spec(f"{file}:MyHead")
    assert (spec.name, spec.reads, spec.family) == (f"{file}:MyHead", "tokens", "of a user")
    assert spec.summary == "One learned query weighs the tokens; their weighted mean is classified"
    assert spec.formula == spec.source == "not stated"
    assert spec.code


def test_a_file_may_give_a_spec_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import replace\nfrom featcache.heads import HEADS\n"
        "SPEC = replace(HEADS['protobin'], summary='mine')\n"
    )
    assert head_spec(f"{path}:SPEC").summary == "mine"
    assert build_head(f"{path}:SPEC", 8, 2, per_class=3).config["name"] == f"{path}:SPEC"


def test_a_head_is_built_of_its_class_without_a_name() -> None:
    class Mine(Linear):
        reads = "mean"

    head = build_head(Mine, 8, 3, norm="batch")
    assert head.config == {"name": "mine", "dim": 8, "num_classes": 3, "norm": "batch"}
    assert (head.reads, build_head(Linear, 8, 3).reads, build_head("linear-mean", 8, 3).reads) == (
        "mean", "cls", "mean",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("my_head.py:MyHead", "my_head.py:MyHead", {}),
        ("/a/b.py:MyHead:norm=batch,dropout=0.1", "/a/b.py:MyHead", {"norm": "batch", "dropout": 0.1}),
        ("mine:norm=batch", "mine", {"norm": "batch"}),
    ],
)
def test_options_follow_the_name_of_a_users_head(text: str, name: str, options: dict[str, object]) -> None:
    assert split_options(text) == (name, options)


def test_a_choice_of_a_file_reads_back_as_itself(file: Path) -> None:
    choice = parse_choice(f"{file}:MyHead:norm=batch,sharpness=2")
    assert choice.options == {"norm": "batch", "sharpness": 2}
    assert parse_choice(choice.title) == choice


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("colour=red", "colour='red': its options are sharpness, norm, dropout, use_padding"),
        ("norm=group", "norm='group': wanted one of none, batch, layer"),
        ("sharpness=much", "sharpness='much': wanted a number, 0 or more"),
        ("sharpness", "'sharpness' has no value"),
    ],
)
def test_an_option_that_a_users_head_cannot_take_is_one_line(option: str, message: str, file: Path) -> None:
    with pytest.raises(InputError, match=message):
        parse_choice(f"{file}:MyHead:{option}")


def test_options_may_be_below_zero_where_their_default_is_and_of_any_type_of_their_own(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from featcache.heads import Linear\n"
        "class Mine(Linear):\n"
        "    reads = 'mean'\n"
        "    def __init__(self, dim: int, num_classes: int, *, shift: int = -1, gain: float = -0.5,\n"
        "                 depth: int = 1, sizes: list[int] | None = None):\n"
        "        super().__init__(dim, num_classes)\n"
        "        self.sizes = sizes\n"
    )
    parse_choice(f"{path}:Mine:shift=-3,gain=-2.5,depth=2")
    with pytest.raises(InputError, match="depth=0: wanted a whole number, 1 or more"):
        parse_choice(f"{path}:Mine:depth=0")
    with pytest.raises(InputError, match=r"shift=0.5: wanted a whole number$"):
        parse_choice(f"{path}:Mine:shift=0.5")
    assert build_head(f"{path}:Mine", 8, 2, sizes=[1]).sizes == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Mine: pass", "mine.py:Mine is no head: wanted a class derived from featcache.heads.Head"),
        ("Mine = 3", "mine.py:Mine is no head"),
        (
            "from featcache.heads import Head\nclass Mine(Head): pass",
            "mine.py:Mine must say what it reads: .* reads is None, wanted one of cls, mean, tokens",
        ),
        ("from featcache.heads import Head\nclass Mine(Head): reads = 'all'", "reads is 'all', wanted one"),
    ],
)  # fmt: skip
def test_what_is_no_head_is_told_why(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        head_spec(f"{path}:Mine")


# ---- by entry point -------------------------------------------------------------------------


@pytest.mark.usefixtures("package")
def test_an_installed_package_adds_its_heads_by_an_entry_point() -> None:
    check_head("theirs")
    assert parse_choice("theirs:norm=layer").name == "theirs"
    lines = run("heads").output.split("\nsolved, not trained")[0].splitlines()
    assert [line.split()[0] for line in lines] == [*HEADS, "theirs"]
    with pytest.raises(InputError, match=r"no head named 'their'; did you mean 'theirs'\?"):
        head_spec("their")


# ---- by register_head -----------------------------------------------------------------------


@pytest.mark.usefixtures("own_table")
def test_a_class_is_registered_under_its_own_or_another_name() -> None:
    class Doubled(Linear):
        """Twice the vector."""

        reads = "mean"

    assert register_head(Doubled).name == "doubled"
    assert register_head(Doubled, name="mine").summary == "Twice the vector"
    assert type(build_head("mine", 8, 3)) is type(build_head("doubled", 8, 3)) is Doubled
    assert register_head(replace(HEADS["linear"], name="flat")).name == "flat"
    assert "flat" in run("heads").output


@pytest.mark.usefixtures("own_table")
def test_a_class_that_is_defined_again_takes_its_own_place() -> None:
    def cell(size: int) -> type[Linear]:
        class Mine(Linear):
            reads = "mean"
            width = size

        return Mine

    register_head(cell(1))
    register_head(cell(2))
    assert HEADS["mine"].build.width == 2


@pytest.mark.usefixtures("own_table")
def test_a_name_that_is_taken_or_cannot_be_written_is_refused() -> None:
    class Mine(Linear):
        reads = "mean"

    for taken in ("linear", "attentive"):
        with pytest.raises(
            InputError, match=f"there is a head named '{taken}' already; register yours under"
        ):
            register_head(Mine, name=taken)
    with pytest.raises(InputError, match="cannot be named 'a:b': options follow a colon"):
        register_head(Mine, name="a:b")
    with pytest.raises(InputError, match="linear is no head: wanted a class"):
        register_head(Linear(8, 3))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="must say what it reads"):
        register_head(type("Mute", (Linear,), {}))


# ---- the command ----------------------------------------------------------------------------


def test_the_command_shows_a_users_head_with_its_options(file: Path) -> None:
    done = run("heads", f"{file}:MyHead")
    assert done.exit_code == 0, done.output
    assert re.search(r"^reads +all tokens$", done.output, re.MULTILINE)
    assert re.search(r"^options +sharpness=1.0 +a number, 0 or more$", done.output, re.MULTILINE)
    assert re.search(r"^ +norm=none +one of none, batch, layer$", done.output, re.MULTILINE)
    facts = json.loads(run("heads", f"{file}:MyHead", "--json").output)
    assert facts["options"] == {
        "sharpness": 1.0,
        "norm": "none",
        "dropout": 0.0,
        "use_padding": False,
        "standardize": "none",
    }


@pytest.mark.parametrize("name", HEADS)
def test_the_options_that_the_command_shows_build_the_head(name: str) -> None:
    options = json.loads(run("heads", name, "--json").output)["options"]
    with torch.device("meta"):
        build_head(name, 64, 3, grid=(2, 3), num_layers=2, **options)


def test_a_head_without_options_has_those_of_every_head(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from featcache.heads import Linear\nclass Mine(Linear):\n    reads = 'mean'\n"
        "    def __init__(self, dim, num_classes):\n        super().__init__(dim, num_classes)\n"
    )
    assert re.search(
        r"^options +standardize=none +one of none, channel$",
        run("heads", f"{path}:Mine").output,
        re.MULTILINE,
    )


@pytest.mark.parametrize("text", ["class Mine(", "1 / 0", "class Mine: pass", ""])
def test_probe_refuses_a_file_that_gives_no_head_in_one_line(
    text: str, make_tokens: Make, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(text)
    done = run("probe", make_tokens()[0], "--head", f"{tmp_path}/mine.py:Mine")
    assert done.exit_code == 2
    assert re.fullmatch(r"Error: .*mine.py.*\n", done.output)


# ---- trained, saved, loaded -----------------------------------------------------------------


def test_a_head_of_a_file_trains_beside_others_and_comes_back_with_its_class(
    file: Path, make_tokens: Make, tmp_path: Path
) -> None:
    cache, manifest = make_tokens()
    out = tmp_path / "out"
    own = f"{file}:MyHead"
    done = run("probe", cache, "--manifest", manifest, "--head", own, "--head", f"{own}:norm=batch",
               "--head", "linear", "--epochs", 2, "--batch-size", 16, "--seeds", 2, "--no-solved",
               "--out", out)  # fmt: skip
    assert done.exit_code == 0, done.output
    results = read_results([out])
    assert [result.label for result in results[::2]] == [own, f"{own}[norm=batch]", "linear"]
    for result in results[:4]:
        with pytest.raises(
            InputError, match=r"my_head.py:MyHead' that is not registered.* load\(path, head="
        ):
            load(result.file("head"))
        head = load(result.file("head"), head=head_spec(own).build)
        assert (head.config["name"], head.reads) == (own, "tokens")
        ids, logits, _ = result.scores()
        store = TokenCache.open(cache)
        rows = store.find(ids)
        with torch.no_grad():
            again = head(store.tokens(rows), None, store.mask(rows))
        np.testing.assert_allclose(again.numpy(), logits, atol=1e-5)
    done = run("compare", out, "--out", tmp_path / "compared")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "compared/wins-heads.png").exists()


@pytest.mark.usefixtures("own_table")
def test_a_registered_head_trains_and_is_found_again(make_tokens: Make, tmp_path: Path) -> None:
    class Doubled(Linear):
        reads = "mean"

        def pool(self, tokens, cls, valid):  # type: ignore[no-untyped-def]
            return 2 * cls

    register_head(Doubled)
    (result,) = probe(*make_tokens(), heads="doubled:norm=layer", out=tmp_path, **QUICK)
    assert isinstance(load(result.file("head")), Doubled)
    del HEADS["doubled"]
    with pytest.raises(InputError, match=r"a head 'doubled' that is not registered"):
        load(result.file("head"))


@pytest.mark.usefixtures("package")
def test_a_head_of_a_package_trains_and_is_loaded_with_its_class(make_tokens: Make, tmp_path: Path) -> None:
    (result,) = probe(*make_tokens(), heads="theirs", out=tmp_path / "out", **QUICK)
    with pytest.raises(InputError, match="a head 'theirs' that is not registered"):
        load(result.file("head"))
    assert load(result.file("head"), head=head_spec("theirs")).config["name"] == "theirs"


def test_a_head_is_trained_again_when_its_file_has_changed_and_only_then(
    file: Path, make_tokens: Make, tmp_path: Path
) -> None:
    made, said = make_tokens(), []

    def once() -> str:
        (result,) = probe(*made, heads=f"{file}:MyHead", out=tmp_path / "out", say=said.append, **QUICK)
        return str(result["run"])

    first = once()
    assert once() == first
    assert any("1 of 1 heads" in line for line in said)
    file.write_text(example().replace("0.02 * torch.randn", "0.03 * torch.randn"))
    assert once() != first
    file.write_text(example())
    assert once() == first
    assert len(read_results([tmp_path / "out"])) == 2


def test_a_search_of_a_changed_head_is_another_search(file: Path, make_tokens: Make, tmp_path: Path) -> None:
    made, out = make_tokens(), tmp_path / "out"
    for text in (example(), example() + "# changed\n"):
        file.write_text(text)
        probe(*made, heads=f"{file}:MyHead", out=out, search=True, trials=2, **QUICK)
    lines = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert len({line["study"] for line in lines}) == 2


def test_what_changes_while_a_head_trains_counts_from_the_next_run(
    file: Path, make_tokens: Make, tmp_path: Path
) -> None:
    def edit(*_: object) -> None:
        file.write_text("class MyHead(\n")  # half way through an edit

    (result,) = probe(*make_tokens(), heads=f"{file}:MyHead", out=tmp_path / "out", watch=edit, **QUICK)
    assert result["epochs"] == 2
    with pytest.raises(InputError, match="SyntaxError"):
        probe(*make_tokens(), heads=f"{file}:MyHead", out=tmp_path / "out", **QUICK)
