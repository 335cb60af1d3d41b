"""What a check of a store found. Apart from the check, so that it can be imported without boto3."""

from dataclasses import dataclass

from export_worker.errors import StorageError


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found.

    Args:
        problem: Why the worker cannot use the store; None if nothing is wrong.
        denied: The store knows the worker and the bucket, but does not allow or support this call. That shows neither
            that the worker can use the store nor that it cannot.
    """

    problem: StorageError | None = None
    denied: bool = False
