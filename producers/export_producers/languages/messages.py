"""Shows the English messages of workers and of other programs in the language of the reader. Pure.

A message is stored as English text: a note of a timeline, an error, a finding of `doctor`, a problem of a field. As in
gettext, its English template is the key of its translation, so that messages of all versions of workers are read, and
no stored layout knows about languages. A text that fits no template is shown unchanged: it is the text of a platform,
or of a person.

`{name}` in a template stands for any text, `{name:t}` in a translation for the same text after its own translation.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from string import Formatter

from export_producers.choices import Language

MESSAGE_MAX_CHARS = 2000
"""A longer text is shown unchanged: no message of ours is as long, and each template reads all of it."""
MEMORY = 2048
"""Translations that a process remembers. Pages show the same messages again and again."""
DEPTH_MAX = 6
"""Messages in messages. Ours have at most five levels."""
READS_MAX = 60
"""Texts that are looked up for one message, each in all templates: a bound for texts that are made to take long."""
WEAK_CHARS, WEAK_CHARS_WITH_BEGINNING = 12, 4
"""Templates with fewer characters also fit texts of others. They are used only if a part of them has a translation."""
JOINTS = {"; ": "\uff1b", ": ": "\uff1a"}
"""What is between messages that are joined, and what a translation has in its place."""


@dataclass(frozen=True, slots=True)
class Template:
    """A message whose parts are filled in.

    Args:
        texts: The texts around the parts, one more than there are parts. All but the first and last have characters.
        names: The names of the parts.
        translation: With the parts by their names.
    """

    texts: Sequence[str]
    names: Sequence[str]
    translation: str

    @property
    def chars(self) -> int:
        """How many characters are not filled in."""
        return sum(map(len, self.texts))

    @property
    def is_weak(self) -> bool:
        """Whether the template fits texts of others as well."""
        return self.chars < (WEAK_CHARS_WITH_BEGINNING if self.texts[0] else WEAK_CHARS)

    def parts(self, message: str) -> dict[str, str] | None:
        """Returns the parts of a message; None if it is another message. Reads each character once for each text."""
        first, *between, last = self.texts
        end = len(message) - len(last)
        if not message.startswith(first) or not message.endswith(last) or end < len(first):
            return None
        found, start = [], len(first)
        for each in between:
            at = message.find(each, start, end)
            if at < 0:
                return None
            found.append(message[start:at])
            start = at + len(each)
        return dict(zip(self.names, [*found, message[start:end]], strict=True))


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The translations into one language.

    Args:
        whole: Of messages without parts.
        templates: The others.
    """

    whole: Mapping[str, str]
    templates: Sequence[Template]


@cache
def catalogue(language: Language) -> Catalogue:
    """Returns the translations into a language."""
    folder = files(__package__) / "translations" / language
    named: dict[str, str] = {}
    for each in folder.iterdir():
        if each.name.endswith(".toml"):
            named |= tomllib.loads(each.read_text(encoding="utf-8"))
    statements = {english: each for message in named.items() for english, each in _statements(*message)}
    templates = [template(english, each) for english, each in (statements | named).items()]
    whole = {each.texts[0]: each.translation.format() for each in templates if not each.names}
    return Catalogue(whole, [each for each in templates if each.names])


def _statements(english: str, translation: str) -> Iterator[tuple[str, str]]:
    """Yields the statements of a message that has several: `doctor` shows the advice of an error by itself."""
    joint, wide = next(iter(JOINTS.items()))
    found = list(zip(english.split(joint), translation.split(wide), strict=False))
    if 1 < len(found) == 1 + english.count(joint) == 1 + translation.count(wide):
        yield from (each for each in found if not template(*each).is_weak and _names(each[1]) <= _names(each[0]))


def _names(of: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(of) if name is not None}


def template(english: str, translation: str) -> Template:
    """Returns a template and its translation."""
    fields = list(Formatter().parse(english))
    names = [name for _, name, _, _ in fields if name is not None]
    texts = [literal for literal, *_ in fields] + ([""] if fields and fields[-1][1] is not None else [])
    return Template(texts, names, translation)


def translated(language: Language, message: str) -> str:
    """Returns a message in a language; unchanged if it is none of ours, or in English."""
    return message if language == "en" or len(message) > MESSAGE_MAX_CHARS else _translated(language, message)


@lru_cache(MEMORY)
def _translated(language: Language, message: str) -> str:
    reading = _Reader(catalogue(language)).read(message)
    return message if reading is None else reading.translation


@dataclass(frozen=True, slots=True)
class _Reading:
    """A way to read a message.

    Args:
        known: How many characters of the message it translates.
    """

    translation: str
    known: int


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a message, with its own reading if it has one. A translation writes `{name}`, or `{name:t}`."""

    text: str
    reading: _Reading | None

    def __format__(self, form: str) -> str:
        return self.translation if form == "t" else self.text

    @property
    def translation(self) -> str:
        """Its translation, or the text itself."""
        return self.text if self.reading is None else self.reading.translation

    @property
    def known(self) -> int:
        """How many of its characters are translated."""
        return 0 if self.reading is None else self.reading.known


class _Reader:
    """Translates one message, with the messages in it: in the way that translates most of it."""

    def __init__(self, found: Catalogue) -> None:
        self._found = found
        self._readings: dict[str, _Reading | None] = {}

    def read(self, message: str, depth: int = 0) -> _Reading | None:
        """Returns the best reading; None if nothing of it is known."""
        if message in self._readings:
            return self._readings[message]
        if not message or depth > DEPTH_MAX or len(self._readings) >= READS_MAX:
            return None
        self._readings[message] = None
        whole = self._found.whole.get(message)
        found = [_Reading(whole, len(message))] if whole is not None else [*self._ways(message, depth)]
        self._readings[message] = max(found, key=lambda each: each.known, default=None)
        return self._readings[message]

    def _ways(self, message: str, depth: int) -> Iterator[_Reading]:
        for each in self._found.templates:
            if (parts := each.parts(message)) is not None:
                read = {name: self._part(each, name, text, depth) for name, text in parts.items()}
                known = sum(part.known for part in read.values())
                if known or not each.is_weak:
                    yield _Reading(each.translation.format_map(read), each.chars + known)
        for joint, wide in JOINTS.items():
            # A message of ours can contain a joint, so the first and the last one are tried alone, too.
            for texts in (message.split(joint), message.split(joint, 1), message.rsplit(joint, 1)):
                joined = [self._part(None, "", text, depth) for text in texts]
                if known := sum(part.known for part in joined):
                    yield _Reading(wide.join(part.translation for part in joined), known)

    def _part(self, of: Template | None, name: str, text: str, depth: int) -> _Part:
        """Returns a part of a message, with its translation if it is to be translated and has one."""
        found = self.read(text, depth + 1) if of is None or f"{{{name}:t}}" in of.translation else None
        return _Part(text, found)
