"""Splits durations into units for people. Pure."""

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def in_units(seconds: int, most: int) -> list[tuple[int, str]]:
    """Returns a duration in its largest units, `most` of them, e.g. `185` as `[(3, "min"), (5, "s")]`.

    The units are d, h, min and s. A negative duration counts as 0.
    """
    left = max(0, seconds)
    parts: list[tuple[int, str]] = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, unit))
    return [(count, unit) for count, unit in parts[:most] if count] or [(0, "s")]
