"""The buckets in which the durations of whole exports are counted, in metrics and in the statistics in Redis. Pure."""

from bisect import bisect_left

BUCKETS_S: tuple[float, ...] = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86_400)
"""The upper limits. Exports take seconds to hours; the default deadline is a day."""

LAST_BUCKET = "inf"
"""The bucket of all longer durations."""


def bucket_of(duration_s: float) -> str:
    """Returns the name of the bucket of a duration: its upper limit in seconds, or `inf`."""
    position = bisect_left(BUCKETS_S, duration_s)
    return f"{BUCKETS_S[position]:.0f}" if position < len(BUCKETS_S) else LAST_BUCKET
