"""What an extraction will cost, in words: one line at its start, or all of it for ``--plan``."""

from featcache.extraction.plan import Plan
from featcache.extraction.rates import Rates
from featcache.units import bytes_text

RUN_EPOCHS = 30  # of the presets that count epochs, and the most of `plateau` where epochs are long
WORKERS = {"decode": "decoding", "encode": "the encoder", "store": "storing on the host", "write": "the disk"}


def line(plan: Plan) -> str:
    """The plan in one line."""
    if not plan.clips:
        return "plan: nothing to encode"
    size = f"{bytes_text(plan.num_bytes)} of {bytes_text(plan.free)} free"
    audio = "" if plan.audio_seconds is None else f" ({plan.audio_seconds:,.0f} s of audio)"
    text = f"plan: {plan.clips:,} clips to encode{audio}, {plan.tokens:,} tokens x {_layers(plan)}, {size}"
    rates = plan.rates
    if rates is None or plan.hours is None or plan.binds is None or plan.epoch_minutes is None:
        return text
    epochs = plan.break_even_epochs
    pays = (
        "never pays by its time"
        if epochs is None
        else f"pays after {epochs} epoch{'s' if epochs > 1 else ''}"
    )
    each = f"decode {rates.decode:,.0f}, encode {rates.encode:,.0f}, write {rates.write:,.0f} clips/s"
    return (
        f"{text}, about {duration(plan.hours)} ({each}): {WORKERS[plan.binds]} is the slowest stage; an "
        f"epoch of probing reads for {duration(plan.epoch_minutes / 60)}, and the cache {pays}"
    )


def lines(plan: Plan) -> list[str]:
    """The plan on a screen."""
    rows = [("clips", f"{plan.clips:,} to encode, {plan.present:,} need not be")]
    if plan.audio_seconds is not None:
        rows.append(("audio", f"about {plan.audio_seconds:,.0f} s"))
    rows += [
        ("tokens", f"{plan.tokens:,} x {_layers(plan)}"),
        ("on disk", f"{bytes_text(plan.num_bytes)} as {plan.dtype}, of {bytes_text(plan.free)} free"),
        ("a layer", ", ".join(f"{name} {bytes_text(size)}" for name, size in plan.layer_bytes.items())),
    ]
    rows += _measured(plan, plan.rates) if plan.rates else [("rates", "not measured: no clip to decode")]
    return [f"{name:<12}{text}" for name, text in rows]


def _measured(plan: Plan, rates: Rates) -> list[tuple[str, str]]:
    assert plan.hours is not None  # they come with the rates
    assert plan.binds is not None
    assert plan.epoch_minutes is not None
    compiled = (
        f" (compiled: full batches; compiling took {plan.compile_seconds:,.0f} s, once, which is left out)"
        if plan.compile_seconds is not None
        else ""
    )
    each = f"decode {rates.decode:,.1f}, encode {rates.encode:,.1f}, write {rates.write:,.1f} clips/s"
    writers = (
        f" by each of {plan.writers} writers with cores and a disk of its own" if plan.writers > 1 else ""
    )
    return [
        ("rates", f"{each}, each alone, on {rates.clips} clips{compiled}"),
        ("time", f"about {duration(plan.hours)}{writers}; {WORKERS[plan.binds]} is the slowest stage"),
        ("probing", f"{duration(plan.epoch_minutes / 60)} to read it once from this disk "
                    f"({bytes_text(rates.read)}/s), an epoch of training while it does not fit into memory"),
        ("pays", _pays(plan.break_even_epochs)),
    ]  # fmt: skip


def _pays(epochs: int | None) -> str:
    if epochs is None:
        return "never by its time: encoding anew is as fast as reading from this disk"
    return (
        f"after {epochs} epoch{'s' if epochs > 1 else ''} of training, against encoding anew in each: "
        f"in probe run {-(-epochs // RUN_EPOCHS)} (of {RUN_EPOCHS} epochs each)"
    )


def _layers(plan: Plan) -> str:
    return f"{plan.layers} layer{'s' if plan.layers > 1 else ''}"


def duration(hours: float) -> str:
    """A time in its own unit.

    >>> duration(0.001), duration(0.5), duration(3.25), duration(100)
    ('3.6 s', '30.0 minutes', '3.2 hours', '4.2 days')
    """
    for unit, share in (("days", 24), ("hours", 1), ("minutes", 1 / 60)):
        if hours >= share * (2 if unit == "days" else 1):
            return f"{hours / share:,.1f} {unit}"
    return f"{hours * 3600:,.1f} s"
