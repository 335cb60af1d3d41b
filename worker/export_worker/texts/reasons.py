"""Says in plain words why a connection failed."""

import os
import re

_NUMBER = re.compile(r"\b(?:Errno|Error) ([1-9][0-9]{0,3})\b")
_LOOKUP = re.compile(r"Error -[0-9]+ connecting to \S+\. (.+)\.")
"""An error of a name's lookup: its number is none of the operating system."""
_TLS = re.compile(r"\[SSL(?:: \w+)?\] ([^()\[\]]+)")
"""An error of OpenSSL, whose number is none of the operating system either."""


def system_reason(text: str) -> str:
    """Returns the name of the operating system's error in a text, e.g. `connection refused`; else the text itself.

    asyncio, aiohttp and redis-py put the number of the error into a text that repeats addresses as Python shows them:
    `Error 111 connecting to 127.0.0.1:1. Connect call failed ('127.0.0.1', 1).`
    """
    lookup = _LOOKUP.fullmatch(text)
    if lookup:
        return lookup[1].lower()
    if tls := _TLS.search(text):
        return tls[1].strip()
    found = _NUMBER.search(text)
    return os.strerror(int(found[1])).lower() if found else text
