"""The error of references."""


class UnreadableReferenceError(Exception):
    """The value of a reference cannot be read. The message names the reference and never shows a value."""
