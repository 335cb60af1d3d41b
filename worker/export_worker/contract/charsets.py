"""Which charsets a file can be written in and read from."""

import codecs

_SAMPLE = "id,name\r\n1,a\r\n"

_NO_FILES = {
    "idna": "is for host names",
    "punycode": "is for host names",
    "unicode_escape": "is a notation of Python's source code",
    "raw_unicode_escape": "is a notation of Python's source code",
    "utf_7": "is for mail of the 1990s, and has many spellings of one text",
    "charmap": "is a part of Python's other charsets",
    "mbcs": "differs from machine to machine",
    "oem": "differs from machine to machine",
}
"""What Python calls text encodings and no file is written in, by Python's name."""


def charset_codec(name: str) -> codecs.CodecInfo:
    """The codec of a charset; it works piece by piece.

    Raises:
        ValueError: Python does not know it, it is no charset of text (`rot13`, `base64`, `zip`) or none of files.
    """
    try:
        codec = codecs.lookup(name)
        reason = _NO_FILES.get(codec.name.replace("-", "_"))
        if reason is None:
            _check(name, codec)
    except (LookupError, ValueError, TypeError):
        raise ValueError("must be a charset that Python knows, e.g. UTF-8, UTF-16LE or GB18030") from None
    if reason is not None:
        raise ValueError(f"must be a charset that files have; {name} {reason}")
    return codec


def _check(name: str, codec: codecs.CodecInfo) -> None:
    """Raise what is wrong unless text comes back: at once, and a character and a byte at a time."""
    if _SAMPLE.encode(name).decode(name) != _SAMPLE:
        raise ValueError("changes text")
    encoder, decoder = codec.incrementalencoder("strict"), codec.incrementaldecoder("strict")
    data = b"".join(map(encoder.encode, _SAMPLE)) + encoder.encode("", final=True)
    text = "".join(decoder.decode(bytes([byte])) for byte in data) + decoder.decode(b"", final=True)
    if text != _SAMPLE:
        raise ValueError("changes text that comes in pieces")
