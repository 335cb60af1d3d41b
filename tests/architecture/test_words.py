"""Plain English, as far as a test can see it: words and names that the glossary has retired.

A reader who uses English as a second language stumbles over these words: they are pronouns without a noun, or everyday
verbs in a meaning of their own. `worker/ARCHITECTURE.md` has the glossary with the terms to use.
"""

import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import ROOT

RETIRED_WORDS = {
    r"tell|tells|telling|told|untold|retold": "report, return, say, notify",
    r"anew": "again, from the beginning",
    r"whoever|whomever|somebody|anybody|nobody": "name the actor",
    r"mend|mends|mended|mending": "fix, correct, repair",
    r"goes on|going on|gone on|go on with|went on with": "continue, resume",
    r"lets? through|letting through": "allow, admit",
    r"as it stands|as they stand": "unchanged",
    r"set going|sets going": "started, restarted",
    r"tak(?:e|es|en|ing) up|took up": "claim, resume",
    r"laid aside|lay aside|set aside|left alone|leave alone": "say what happens: moved, offered, not called",
    r"out of luck|by luck|bad luck": "say what happens",
}
"""Each with what to say in its place."""

RETIRED_NAMES = frozenset(
    {
        "Chance",
        "Chorus",
        "Dealings",
        "Held",
        "Kept",
        "Keyring",
        "LandedFile",
        "Landing",
        "Machine",
        "OpenUpload",
        "Pace",
        "Standing",
        "StandingUpload",
        "StepWorker",
        "StoringSettings",
        "Turn",
        "Unfit",
    }
)
"""Classes that the field's terms have replaced."""

STORED_NAMES = ("set_going_at", '"mend"', "'mend'")
"""A field of the record in Redis, and a field of `doctor --json`: names that other versions and other programs read."""

READ = {".py", ".pyi", ".lua", ".md", ".toml", ".yaml", ".yml", ".json", ".graphql", ""}
LEFT_OUT = (
    "tests/data/",
    "LICENSE",
    "requirements.lock",
    "worker/requirements.lock",
    "tests/architecture/test_words.py",
)
"""Documents of others, and this list itself."""

PATTERN = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(RETIRED_WORDS).replace(' ', ' +')})(?![A-Za-z])", re.IGNORECASE)


def sources() -> list[Path]:
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    paths = [Path(name) for name in names if not name.startswith(LEFT_OUT)]
    return [path for path in paths if path.suffix in READ and (ROOT / path).is_file()]


def retired_words(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers and words. Underscores and line breaks count as blanks, so identifiers and wrapped text are read."""
    for name in STORED_NAMES:
        text = text.replace(name, " " * len(name))
    flat = re.sub(r"\n(?:\s*(?:#|--|\*|>))?[ \t]*", lambda found: " " * len(found.group()), text).replace("_", " ")
    for found in PATTERN.finditer(flat):
        yield text.count("\n", 0, found.start()) + 1, found.group()


def test_no_file_uses_a_retired_word() -> None:
    read = {path: (ROOT / path).read_text(encoding="utf-8") for path in sources()}
    assert len(read) > 300, "the sources were not found"
    found = [f"{path}:{line} {word}" for path, text in read.items() for line, word in retired_words(text)]
    assert found == []


def test_no_class_has_a_retired_name() -> None:
    python = [path for path in sources() if path.suffix == ".py"]
    assert [f"{path} {name}" for path in python for name in sorted(names_of(path) & RETIRED_NAMES)] == []


def names_of(path: Path) -> set[str]:
    tokens = tokenize.generate_tokens(io.StringIO((ROOT / path).read_text(encoding="utf-8")).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


@pytest.mark.parametrize(
    "text",
    [
        "It tells S3.",
        "what_it_told = 1",
        "begins\n# anew",
        "Nobody knows",
        "the MEND",
        "it goes\n    on with the rest",
        "is let through",
    ],
)
def test_a_retired_word_is_seen(text: str) -> None:
    assert len(list(retired_words(text))) == 1


@pytest.mark.parametrize(
    "text", ["intellect", "recommended", "toldo", "goes, on Monday", "takes upper", "storytelling"]
)
def test_a_plain_word_is_left(text: str) -> None:
    assert list(retired_words(text)) == []
