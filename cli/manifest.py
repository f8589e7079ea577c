"""``featcache manifest``: a data set as a manifest, and what a manifest holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featcache.cli.options import AS_JSON, PATH

if TYPE_CHECKING:
    from featcache.datasets.prepare import Prepared
    from featcache.manifest import Manifest
    from featcache.manifest.events import Event
    from featcache.manifest.review import Contents, Review

SHOWN = 5


@click.command(epilog="Exit codes: 0 done, 1 --check found something missing or in two splits, 2 bad input.")
@click.argument("source")
@click.argument("root", required=False, type=PATH)
@click.option("--out", type=PATH, help="The manifest to write (CSV).")
@click.option(
    "--split", "splits", multiple=True, type=click.Choice(["train", "valid", "test"]),
    help="Only this split (may be repeated); lists of others need not be there.",
)  # fmt: skip
@click.option("--allow-missing", is_flag=True, help="Go on with what there is of a partial download.")
@click.option(
    "--check", is_flag=True, help="Read the audio: what is unreadable, there twice, or in two splits."
)
@click.option("--map", "map_file", type=PATH, help="CSV label,to: other names for labels.")
@click.option("--keep", help="Only these labels, with ; between.")
@click.option("--drop", help="Not these labels, with ; between.")
@click.option("--min-count", type=click.IntRange(1), default=1, help="No label of fewer clips than this.")
@click.option(
    "--valid", type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Mark this share of the train clips as valid, stratified, recordings kept whole.",
)  # fmt: skip
@click.option(
    "--test", type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Mark this share as test, likewise, before valid is drawn.",
)  # fmt: skip
@click.option("--group", "group_column", help="The column of recordings (site, uploader), if not group.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of what is drawn.")
@AS_JSON
def manifest(
    source: str, root: Path | None, out: Path | None, splits: tuple[str, ...], allow_missing: bool,
    check: bool, map_file: Path | None, keep: str | None, drop: str | None, min_count: int,
    valid: float | None, test: float | None, group_column: str | None, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Make a manifest of a data set, or say what one holds.

    SOURCE is the name of a data set ('featcache datasets') and ROOT the folder in which it was unpacked (or
    SOURCE is NAME:ROOT); else SOURCE is a manifest. Where the data have event times, they are written
    beside it, as M.events.csv.

    \b
    featcache manifest esc50 data/ESC-50-master --out esc50.csv
    featcache manifest as20k data/audioset --allow-missing --check
    featcache manifest clips.csv --keep 'dog;rain' --min-count 5 --out few.csv
    featcache manifest clips.csv --test 0.2 --valid 0.1 --group uploader --out split.csv
    """  # fmt: skip
    from featcache.manifest.review import contents, review

    prepared, clips, events = _read(source, root, splits, allow_missing or check, group_column)
    words = {"keep": _words(keep), "drop": _words(drop)}
    if map_file or keep or drop or min_count > 1:
        clips, events = _select(clips, events, map_file, min_count, **words)
    for part, share in (("test", test), ("valid", valid)):
        if share:
            clips = _draw(clips, part, share, seed)
    for note in clips.notes:
        click.echo(note, err=True)
    if out:
        _write(out, clips, events)
    found = review(clips, progress=True) if check else None
    problems = [*prepared.problems] if prepared else []
    if as_json:
        _print_json(source, contents(clips), found, prepared, events)
    else:
        _print(out or source, contents(clips), events)
        for problem in problems:
            click.echo(f"not whole: {problem}", err=True)
        if found:
            _print_review(found, prepared, clips)
    if check and (problems or (found and not found.sound)):
        raise click.exceptions.Exit(1)


def _read(
    source: str, root: Path | None, splits: tuple[str, ...], allow_missing: bool, group_column: str | None
) -> "tuple[Prepared | None, Manifest, list[Event]]":
    from dataclasses import replace

    from featcache.datasets.prepare import named_source, prepare
    from featcache.errors import InputError
    from featcache.manifest import load_manifest, read_manifest
    from featcache.manifest.events import events_file, read_events

    named = (source, root) if root is not None else named_source(source)
    if named:
        if group_column:
            raise InputError("a data set has its own groups; leave group out", options=("group_column",))
        prepared = prepare(*named, splits=splits, allow_missing=allow_missing)
        return prepared, prepared.manifest, list(prepared.events)
    own = read_manifest(source, group_column=group_column) if group_column else load_manifest(source)
    kept = tuple(clip for clip in own if not splits or clip.split in splits)
    if not kept:
        raise InputError(f"{source} has no clip of {' or '.join(splits)}", options=("splits",))
    beside = events_file(Path(source))
    events = [event for one in read_events(beside).values() for event in one] if beside.is_file() else []
    ids = {clip.id for clip in kept}
    return None, replace(own, clips=kept), [event for event in events if event.id in ids]


def _draw(clips: "Manifest", part: str, share: float, seed: int) -> "Manifest":
    from featcache.heads.data.draw import draw_split

    return draw_split(clips, part, share, seed=seed, progress=True)


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(";") if word.strip()]


def _select(
    clips: "Manifest", events: "list[Event]", map_file: Path | None, min_count: int, **words: list[str]
) -> "tuple[Manifest, list[Event]]":
    from dataclasses import replace

    from featcache.manifest.select import read_map, select

    rename = read_map(map_file) if map_file else None
    left, events = select(clips, events, rename=rename, min_count=min_count, **words)
    return replace(clips, clips=tuple(left)), events


def _write(out: Path, clips: "Manifest", events: "list[Event]") -> None:
    from featcache.manifest import write_manifest
    from featcache.manifest.events import write_events_beside
    from featcache.output import keeping, writable_file

    writable_file(out)
    with keeping(out, "nothing was written"):
        write_manifest(out, clips.clips)
        write_events_beside(out, events)


def _print(name: object, found: "Contents", events: "list[Event]") -> None:
    rare = min(found.labels.values(), default=0)
    most = max(found.labels.values(), default=0)
    click.echo(
        f"{name}: {found.clips:,} clips of {found.files:,} files, {found.unlabelled:,} without a label"
    )
    click.echo(f"labels     {len(found.labels)}, of {rare:,} to {most:,} clips each")
    splits = ", ".join(f"{split or 'none'} {number:,}" for split, number in found.splits.items())
    folds = "".join(f", fold {fold}: {number:,}" for fold, number in found.folds.items())
    click.echo(f"splits     {splits}{folds}")
    if events:
        click.echo(f"events     {len(events):,}")


def _print_review(found: "Review", prepared: "Prepared | None", clips: "Manifest") -> None:
    low, middle, high = found.seconds
    click.echo(f"length     {found.hours:.2f} h; clips of {low:.2f} to {high:.2f} s, median {middle:.2f}")
    click.echo(f"rates      {', '.join(f'{rate} Hz: {number:,}' for rate, number in found.rates.items())}")
    if prepared:
        click.echo(f"found      {_compared(prepared, clips)}")
    for name, rows in {
        "unreadable": [[f"{path}: {why}"] for path, why in found.unreadable.items()],
        "twice": found.twice,
        "leaks": found.leaks,
    }.items():
        shown = "; ".join(" = ".join(row) for row in rows[:SHOWN]) + (" …" if len(rows) > SHOWN else "")
        click.echo(f"{name:<11}{f'{len(rows):,}: {shown}' if rows else 'none'}")


def _compared(prepared: "Prepared", clips: "Manifest") -> str:
    from featcache.datasets.whole import count_files

    found = count_files(clips.clips)
    sizes = prepared.spec.sizes.items()
    return ", ".join(
        f"{split} {found.get(split, 0):,} of {number:,} published files" for split, number in sizes
    )


def _print_json(
    source: str, found: "Contents", audio: "Review | None", prepared: "Prepared | None", events: "list[Event]"
) -> None:
    import json
    from dataclasses import asdict

    told: dict[str, Any] = {
        "source": source,
        **asdict(found),
        "imbalance": found.imbalance,
        "events": len(events),
    }
    if prepared:
        told |= {
            "published": dict(prepared.spec.sizes),
            "classes": prepared.classes,
            "problems": prepared.problems,
        }
    click.echo(json.dumps({**told, **(asdict(audio) if audio else {})}))
