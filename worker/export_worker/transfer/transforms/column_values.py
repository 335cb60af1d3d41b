"""Hashes and masks columns of text with Arrow. Empty values and nulls stay as they are.

A hash is HMAC-SHA-256 of the value's UTF-8, whatever the charset of the file is, in hexadecimal. A mask replaces
characters by `*`; it replaces all of them in a value that is not longer than the end that `mask:N` keeps.
"""

import pyarrow as pa
from pyarrow import compute

from export_worker.transfer.transforms.column_rules import KEEP, unmasked_characters
from export_worker.transfer.transforms.keyed_hash import KeyedHash


def changed(values: pa.Array, action: str, hashing: KeyedHash | None) -> pa.Array:
    """Returns the values after an action that does not drop them.

    Args:
        values: Text.
        hashing: Must be given for `hash`.
    """
    if action == KEEP:
        return values
    return _hashed(values, hashing) if action == "hash" else _masked(values, unmasked_characters(action))


def _hashed(values: pa.Array, hashing: KeyedHash | None) -> pa.Array:
    if hashing is None:
        raise ValueError("a hash needs a key")
    coded = values.dictionary_encode()  # so that a value that repeats is hashed once
    texts = coded.dictionary.cast(pa.binary()).to_pylist()
    hashes = [value if text else "" for text, value in zip(texts, hashing.hashes(texts), strict=True)]
    return pa.array(hashes, pa.string()).take(coded.indices)


def _masked(values: pa.Array, kept: int) -> pa.Array:
    lengths = compute.utf8_length(values)
    if not kept:
        return compute.binary_repeat(pa.scalar("*"), lengths)
    is_long = compute.greater(lengths, kept)
    stars = compute.if_else(is_long, compute.subtract(lengths, kept), lengths)
    ends = compute.if_else(is_long, compute.utf8_slice_codeunits(values, start=-kept), "")
    return compute.binary_join_element_wise(compute.binary_repeat(pa.scalar("*"), stars), ends, "")
