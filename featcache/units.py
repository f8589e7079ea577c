"""Numbers with their units, as people read them."""


def bytes_text(count: float) -> str:
    """A number of bytes, in thousands.

    >>> bytes_text(2_500_000), bytes_text(3e12)
    ('2.5 MB', '3.0 TB')
    """
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"
