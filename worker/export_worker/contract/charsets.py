"""The charsets that a file can be read from and written in."""

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
"""Python's text encodings that are no charset of files, by Python's name, and why."""


def charset_codec(name: str) -> codecs.CodecInfo:
    """Returns the codec of a charset. The codec can process a text piece by piece.

    Raises:
        ValueError: Python does not know the charset, or it is none of text (`rot13`, `base64`, `zip`) or of files.
    """
    try:
        codec = codecs.lookup(name)
        reason = _NO_FILES.get(codec.name.replace("-", "_"))
        if reason is None:
            _check(name, codec)
    except (LookupError, ValueError, TypeError):
        raise ValueError("must be a charset that Python knows, e.g. UTF-8, UTF-16LE or GB18030") from None
    if reason is not None:
        raise ValueError(f"must be a charset of files; {name} {reason}")
    return codec


def _check(name: str, codec: codecs.CodecInfo) -> None:
    """Raises an error unless a text survives the codec: as a whole, and piece by piece."""
    if _SAMPLE.encode(name).decode(name) != _SAMPLE:
        raise ValueError("changes text")
    encoder, decoder = codec.incrementalencoder("strict"), codec.incrementaldecoder("strict")
    data = b"".join(map(encoder.encode, _SAMPLE)) + encoder.encode("", final=True)
    text = "".join(decoder.decode(bytes([byte])) for byte in data) + decoder.decode(b"", final=True)
    if text != _SAMPLE:
        raise ValueError("changes text that is processed in pieces")
