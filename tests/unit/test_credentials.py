"""Secrets are read by reference, and masked in every form in which they leave the process."""

import html
import json
import sys
import threading
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from html.entities import codepoint2name
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr
from yarl import URL

from export_worker.credentials import MASK, MIN_SECRET_LENGTH, Redactor, reveal, url_passwords
from export_worker.errors import ConfigError

CANARY = "canary-S3cret"
AWKWARD = 'ca/na+ry="quo\'te\\d" & 秘密 😀%41\n'
"""A secret with every kind of character that some library escapes."""

SETTING = "connections.gio.token"


def redactor_of(*secrets: str | None) -> Redactor:
    redactor = Redactor()
    for secret in secrets:
        redactor.add(secret)
    return redactor


def test_reveal_returns_a_literal_value() -> None:
    assert reveal(SecretStr(CANARY), SETTING) == CANARY
    assert reveal(SecretStr("environment:x"), SETTING) == "environment:x"


def test_reveal_reads_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIO_TOKEN", CANARY)
    assert reveal(SecretStr("env:GIO_TOKEN"), SETTING) == CANARY


@pytest.mark.parametrize("value", [None, ""])
def test_reveal_refuses_a_variable_that_is_not_set(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("GIO_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("GIO_TOKEN", value)
    with pytest.raises(ConfigError, match=r"^connections\.gio\.token: environment variable GIO_TOKEN is not set$"):
        reveal(SecretStr("env:GIO_TOKEN"), SETTING)


@pytest.mark.parametrize("written", [CANARY, f"{CANARY}\n", f"\n  {CANARY}\r\n"])
def test_reveal_reads_a_file_without_surrounding_white_space(tmp_path: Path, written: str) -> None:
    file = tmp_path / "token"
    file.write_text(written)
    assert reveal(SecretStr(f"file:{file}"), SETTING) == CANARY


def make_no_file(path: Path) -> None:
    del path


def make_empty_file(path: Path) -> None:
    path.write_text(" \n")


def make_binary_file(path: Path) -> None:
    path.write_bytes(b"\xff" + CANARY.encode())


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (make_no_file, r"cannot read .*/token \(No such file or directory\)"),
        (Path.mkdir, r"cannot read .*/token \(Is a directory\)"),
        (make_binary_file, r"cannot read .*/token \(is not text in UTF-8 \(byte 1\); save the file as UTF-8\)"),
        (make_empty_file, r".*/token is empty"),
    ],
)
def test_reveal_refuses_a_file_without_a_secret(tmp_path: Path, make: Callable[[Path], None], expected: str) -> None:
    make(tmp_path / "token")
    with pytest.raises(ConfigError, match=f"^connections.gio.token: {expected}$") as caught:
        reveal(SecretStr(f"file:{tmp_path / 'token'}"), SETTING)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_reveal_reads_a_file_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "token").write_bytes(f"{CANARY}\r\n".encode(encoding))
    assert reveal(SecretStr(f"file:{tmp_path / 'token'}"), SETTING) == CANARY


def test_reveal_refuses_an_invalid_path() -> None:
    with pytest.raises(ConfigError, match=r"^connections\.gio\.token: cannot read"):
        reveal(SecretStr("file:/a\x00b"), SETTING)


FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "quote": quote,
    "quote without safe characters": lambda secret: quote(secret, safe=""),
    "quote in lower case": lambda secret: quote(secret).replace("%2B", "%2b").replace("%5C", "%5c"),
    "quote_plus": quote_plus,
    "form": lambda secret: urlencode({"token": secret}),
    "query of yarl": lambda secret: str(URL("https://op.example.cn/a").with_query({"token": secret})),
    "readable query of yarl": lambda secret: URL("https://op.example.cn").with_query({"t": secret}).human_repr(),
    "path of yarl": lambda secret: str(URL.build(scheme="https", host="op.example.cn", path=f"/{secret}")),
    "URL in a URL": lambda secret: str(URL("https://a").with_query({"to": f"https://b/?t={quote(secret)}"})),
    "password of yarl": lambda secret: str(URL("https://op.example.cn").with_user("u").with_password(secret)),
    "JSON": json.dumps,
    "JSON with Unicode": lambda secret: json.dumps(secret, ensure_ascii=False),
    "JSON in JSON": lambda secret: json.dumps(json.dumps({"token": secret})),
    "JSON in JSON in JSON": lambda secret: json.dumps(json.dumps(json.dumps(secret), ensure_ascii=False)),
    "JSON with slashes escaped": lambda secret: json.dumps(secret).replace("/", "\\/"),
    "repr": repr,
    "ascii": ascii,
    "unicode_escape": lambda secret: secret.encode("unicode_escape").decode(),
    "exception": lambda secret: "".join(traceback.format_exception(ValueError({"token": secret}))),
    "exception of a key": lambda secret: str(KeyError(secret)),
}


@pytest.mark.parametrize("secret", [CANARY, AWKWARD, "中文密码", "a b c", "%41%", "a+b\\n", "$^.*+?x"])
@pytest.mark.parametrize("form", FORMS)
def test_secret_is_masked_in_every_form_and_other_text_is_kept(form: str, secret: str) -> None:
    expected = FORMS[form]("x1y2z3").replace("x1y2z3", MASK)
    assert redactor_of(secret).text(f"<{FORMS[form](secret)}>") == f"<{expected}>"


@pytest.mark.parametrize("secret", ['""""', "''''", "\\\\\\\\", "    ", "%%%%", "++++", "....", "\t\t\t\t", "&=&="])
@pytest.mark.parametrize("form", FORMS)
def test_secret_of_special_characters_is_masked_in_every_form(form: str, secret: str) -> None:
    written = FORMS[form](secret)
    masked = redactor_of(secret).text(f"<{written}>")
    assert MASK in masked
    assert written not in masked


EVERY_CHARACTER: dict[str, Callable[[str], str]] = {
    "\\\\u": lambda character: f"\\u{ord(character):04x}",
    "\\\\U in JSON": lambda character: f"\\\\u{ord(character):04X}",
    "\\\\x": lambda character: f"\\x{ord(character):02x}",
    "percent": lambda character: "".join(f"%{byte:02X}" for byte in character.encode()),
    "percent twice": lambda character: "".join(f"%25{byte:02x}" for byte in character.encode()),
    "%u": lambda character: f"%u{ord(character):04X}",
    "decimal entity": lambda character: f"&#{ord(character)};",
    "long entity": lambda character: f"&#{ord(character):05d};",
    "hexadecimal entity": lambda character: f"&#x{ord(character):X};",
    "entity with zeros": lambda character: f"&#{ord(character):012d};",
    "long Unicode escape": lambda character: f"\\U{ord(character):08x}",
    "Unicode escape of JavaScript": lambda character: f"\\u{{{ord(character):x}}}",
    "entity in HTML": lambda character: f"&amp;#{ord(character)};",
}


def named_entity(character: str) -> str:
    name = codepoint2name.get(ord(character))
    return character if name is None else f"&{name};"


SOME_CHARACTERS: dict[str, Callable[[str], str]] = {
    "html.escape": html.escape,
    "named entities": lambda secret: "".join(
        f"&{codepoint2name[ord(c)]};" if ord(c) in codepoint2name else c for c in secret
    ),
    "JSON of PHP": lambda secret: (
        json.dumps(secret).replace("&", "\\u0026").replace("+", "\\u002b").replace("=", "\\u003D")
    ),
    "entities without semicolons": lambda secret: "".join(f"&#{ord(character)}" for character in secret) + " ",
    "JavaScript": lambda secret: secret.replace("/", "\\x2f").replace("+", "\\x2B"),
    "escape of JavaScript": lambda secret: quote(secret, safe="").replace("%2B", "%u002b"),
    "base64": lambda secret: b64encode(secret.encode()).decode(),
    "base64 for URLs": lambda secret: urlsafe_b64encode(secret.encode()).decode().rstrip("="),
    "basic authentication": lambda secret: b64encode(f"user:{secret}".encode()).decode(),
    "within base64": lambda secret: b64encode(f"ab{secret}\n".encode()).decode(),
}


@pytest.mark.parametrize("secret", [CANARY, "ca/na+ry=&<é>", "秘密的密码"])
@pytest.mark.parametrize("form", EVERY_CHARACTER)
def test_secret_is_masked_when_any_of_its_characters_is_escaped(form: str, secret: str) -> None:
    if form == "\\\\x" and not all(ord(character) < 256 for character in secret):
        secret = CANARY
    redactor, escape = redactor_of(secret), EVERY_CHARACTER[form]
    assert redactor.text("<" + "".join(map(escape, secret)) + ">") == f"<{MASK}>"
    for index in range(len(secret)):
        masked = redactor.text(f"<{secret[:index]}{escape(secret[index])}{secret[index + 1 :]}>")
        assert masked in {f"<{MASK}>", f"<%{MASK}>"}


@pytest.mark.parametrize("secret", [CANARY, "ca/na+ry=&<é>", "秘密的密码", "a1+/b2==c3"])
@pytest.mark.parametrize("form", SOME_CHARACTERS)
def test_secret_is_masked_in_what_platforms_write_and_in_base64(form: str, secret: str) -> None:
    written = SOME_CHARACTERS[form](secret)
    masked = redactor_of(secret).text(f"<{written}>")
    assert MASK in masked
    assert len(masked) <= len(MASK) + 2 + 12, "more than the borders of base64 is left"


def test_text_with_escaped_characters_is_unchanged_if_it_has_no_secret() -> None:
    text = "100 %25 &lt;b&gt; \\u0041 caf%C3%A9 &#65; %zz &nosuchname; \\x41 %ff%fe"
    assert redactor_of(CANARY, AWKWARD).text(text) == text


PADDING = st.text(st.sampled_from(' \n\t\x00ab<&%\\"中'), max_size=400)


@given(PADDING, PADDING, st.sampled_from([*EVERY_CHARACTER.values(), str]), st.integers(1, 120))
def test_excerpt_shows_no_part_of_a_secret_at_any_border(
    before: str, after: str, escape: Callable[[str], str], limit: int
) -> None:
    secret = "T0kenWxyZ987"
    excerpt = redactor_of(secret).excerpt(before + "".join(map(escape, secret)) + after, limit)
    assert len(excerpt) <= limit
    for start in range(len(secret) - MIN_SECRET_LENGTH + 1):
        shown = secret[start : start + MIN_SECRET_LENGTH]
        assert shown not in excerpt
        assert "".join(map(escape, shown)) not in excerpt


CUT_FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "backslashes": lambda secret: json.dumps(json.dumps(secret))[3:-3],
    "repr": lambda secret: repr(secret)[1:-1],
    "base64": lambda secret: b64encode(secret.encode()).decode(),
    "escaped twice": lambda secret: quote("".join(f"&#{ord(character)};" for character in secret), safe=""),
    **{
        name: lambda secret, escape=escape: "".join(map(escape, secret))  # type: ignore[misc]  # one function each
        for name, escape in EVERY_CHARACTER.items()
    },
}


def parts_of(secret: str, write: Callable[[str], str]) -> set[str]:
    """Returns all parts of a secret that are long enough to be one, plain and as they were written."""
    written = write(secret)
    size = max(MIN_SECRET_LENGTH, len(written) * MIN_SECRET_LENGTH // len(secret))
    plain = (secret[start : start + MIN_SECRET_LENGTH] for start in range(len(secret) - MIN_SECRET_LENGTH + 1))
    return {*plain, *(written[start : start + size] for start in range(len(written) - size + 1))}


@pytest.mark.parametrize("secret", ["T0kenWxyZ987", 'a1+b2"c3\\d4 e5\nf6', "秘密的密码真长"])
@pytest.mark.parametrize("form", CUT_FORMS)
def test_excerpt_shows_no_part_of_a_secret_at_the_end_of_what_is_read(form: str, secret: str) -> None:
    """The text ends at every place within the secret: because it is long, or because it was cut before."""
    if form == "\\\\x" and not secret.isascii():
        return
    redactor, written, parts = redactor_of(secret), CUT_FORMS[form](secret), parts_of(secret, CUT_FORMS[form])
    for size in range(len(written) + 1):
        filler = "start" + "\n" * (4096 - size - 5)
        for excerpt in (
            redactor.excerpt(filler + written + "after" * 9),
            redactor.excerpt("start\n" + written[:size], is_cut=True),
        ):
            assert excerpt.startswith("start")
            assert not [part for part in parts if part in excerpt], excerpt


@pytest.mark.parametrize("length", [400, 3000])
def test_excerpt_shows_no_part_of_a_long_secret(length: int) -> None:
    secret = "".join(chr(ord("a") + number * number % 26) + str(number) for number in range(length))[:length]
    redactor, parts = redactor_of(secret), {secret[start : start + 4] for start in range(length - 3)}
    for size in (*range(0, length, 97), length - 1, length):
        excerpt = redactor.excerpt("-" * 9 + " " * (4096 - size - 9) + secret + "?" * 99)
        assert excerpt.startswith("-" * 9)
        assert not [part for part in parts if part in excerpt]
    assert redactor.excerpt(f"say {secret} now", is_cut=True) == "say *** now"


@pytest.mark.parametrize("text", ["the end", "50%", "a & b", "x = y;", "C:\\temp", "see &amp; &lt;b&gt;"])
def test_excerpt_of_a_text_that_was_cut_is_complete_but_for_its_last_characters(text: str) -> None:
    excerpt = redactor_of("T0kenWxyZ987", AWKWARD).excerpt(text, is_cut=True)
    assert text.startswith(excerpt)
    assert len(excerpt) >= len(text) - 5


@given(st.integers(0, 20), st.integers(0, 20))
def test_secret_with_blanks_is_masked_before_they_are_folded(before: int, after: int) -> None:
    redactor = redactor_of("to ken\n\nwith  blanks")
    assert redactor.excerpt(" " * before + "<to ken\n\nwith  blanks>" + "\n" * after) == f"<{MASK}>"


@pytest.mark.parametrize("charset", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_secret_in_another_charset_is_masked_in_an_excerpt(charset: str) -> None:
    text = f"<p>no {CANARY}</p>".encode(charset).decode("utf-8", "replace")
    assert redactor_of(CANARY).excerpt(text) == f"<p>no {MASK}</p>"


def test_secret_that_appears_only_on_one_line_is_masked() -> None:
    assert redactor_of("two words").excerpt("two\n words, two\r\nwords") == f"{MASK}, {MASK}"


def test_text_without_a_secret_is_unchanged() -> None:
    redactor = redactor_of(AWKWARD, CANARY)
    for text in ("", "canary-S3cre", "nary-S3cret", "CANARY-S3CRET", '{"token": "***"}', "100 % \\ done"):
        assert redactor.text(text) == text


def test_secret_is_masked_at_every_position() -> None:
    redactor = redactor_of(CANARY)
    assert redactor.text(f"{CANARY}{CANARY} x{CANARY}y") == f"{MASK}{MASK} x{MASK}y"


@pytest.mark.parametrize("secret", [None, "", "abc", "a" * (MIN_SECRET_LENGTH - 1)])
def test_secret_that_is_too_short_is_not_masked(secret: str | None) -> None:
    assert redactor_of(secret).text("aaaa abc None") == "aaaa abc None"


@pytest.mark.parametrize("secrets", [("token", "token-tail"), ("token-tail", "token"), ("tail", "token-tail", "token")])
def test_longest_secret_is_masked_first(secrets: tuple[str, ...]) -> None:
    assert redactor_of(*secrets).text("<token-tail>") == f"<{MASK}>"


def test_secret_that_is_added_later_is_masked_from_then_on() -> None:
    redactor = redactor_of("first-secret")
    assert redactor.text(CANARY) == CANARY
    redactor.add(CANARY)
    assert redactor.text(CANARY) == MASK
    redactor.add(CANARY)
    assert redactor.text(f"first-secret {CANARY}") == f"{MASK} {MASK}"


@dataclass
class Frame:
    """An object with a secret in its repr."""

    token: str


def test_secret_is_masked_in_every_string_of_a_value() -> None:
    value: Any = {
        CANARY: 1,
        "list": [CANARY, {"deep": (f"x{CANARY}", 2, None)}],
        "set": {CANARY},
        "bytes": CANARY.encode() + b"\xff",
        "url": URL(f"https://h/?token={CANARY}"),
        "object": Frame(CANARY),
        "error": ValueError(CANARY),
        "path": Path("/") / CANARY,
        "numbers": [1, 1.5, True, None],
    }
    assert redactor_of(CANARY).value(value) == {
        MASK: 1,
        "list": [MASK, {"deep": [f"x{MASK}", 2, None]}],
        "set": [MASK],
        "bytes": f"{MASK}\\xff",
        "url": f"https://h/?token={MASK}",
        "object": f"Frame(token='{MASK}')",
        "error": MASK,
        "path": f"/{MASK}",
        "numbers": [1, 1.5, True, None],
    }


printable = st.text(st.characters(exclude_characters="*", exclude_categories=["Cs"]), max_size=12)
secrets_st = printable.filter(lambda secret: len(secret) >= MIN_SECRET_LENGTH)


@given(st.lists(secrets_st, min_size=1, max_size=4), st.data())
@example(secrets=["abcd", "bcd-and-a-long-tail"], data=None)
def test_no_secret_remains_in_text_of_several_secrets(secrets: list[str], data: Any) -> None:
    pieces = data.draw(st.lists(st.sampled_from(secrets) | printable, max_size=6)) if data else ["a", secrets[1]]
    masked = redactor_of(*secrets).text("".join(pieces))
    assert not [secret for secret in secrets if secret in masked]


@given(st.lists(secrets_st, min_size=1, max_size=3), st.sampled_from(sorted(set(FORMS) - {"path of yarl"})))
def test_no_secret_remains_in_any_form(secrets: list[str], form: str) -> None:
    redactor = redactor_of(*secrets)
    for secret in secrets:
        masked = redactor.text(FORMS[form](secret))
        assert FORMS[form](secret) not in masked
        assert MASK in masked


@pytest.mark.parametrize("text", ["\\" * 20_000, "%" * 20_000, '"' * 20_000, "\\" * 20_000 + '"', "+ " * 10_000])
def test_masking_text_of_many_escapes_takes_little_time(text: str) -> None:
    # The test's timeout is the assertion: a pattern that backtracks would never end on these texts.
    assert len(redactor_of("\\" * 30 + "x", '\\"' * 20 + "x", " + %" * 10 + "x", AWKWARD).text(text)) == len(text)


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("redis://127.0.0.1:6379/0", None),
        ("redis://:secret@h", "secret"),
        ("rediss://user:se%2Fcret@h:6380/1", "se/cret"),
        ("unix://user:secret@/run/redis.sock?db=2", "secret"),
        ("unix:///run/redis.sock?db=1&password=se%2Fcret", "se/cret"),
        ("redis://user@h", None),
    ],
)
def test_url_passwords_returns_the_password_of_a_redis_url(url: str, password: str | None) -> None:
    assert url_passwords(url) == ([] if password is None else [password])


def test_rotating_masks_only_the_last_secrets() -> None:
    redactor = Redactor()
    redactor.add("always-secret")
    add = redactor.rotating(2)
    for secret in ("first-secret", None, "x", "second-secret", "third-secret"):
        add(secret)
    assert redactor.text("first-secret second-secret third-secret always-secret") == "first-secret *** *** ***"


def test_rotating_keeps_masking_a_secret_that_is_added_again() -> None:
    """The STS of a store may return the same session until it expires."""
    redactor = redactor_of()
    add = redactor.rotating(2)
    for secret in ("first-secret", "second-secret", "first-secret", "second-secret", "second-secret"):
        add(secret)
    assert redactor.text("first-secret second-secret") == "*** ***"


@pytest.mark.parametrize("added_first", [True, False])
def test_secret_that_another_setting_has_stays_masked_when_a_rotation_forgets_it(*, added_first: bool) -> None:
    redactor = Redactor()
    rotate, other = redactor.rotating(1), redactor.rotating(1)
    for add in (other, rotate) if added_first else (rotate, other):
        add("shared-secret")
    rotate("second-secret")
    assert redactor.text("shared-secret second-secret") == "*** ***"
    other("third-secret")
    assert redactor.text("shared-secret") == "shared-secret"


def test_secret_can_be_added_while_another_thread_masks() -> None:
    redactor, switch_s = Redactor(), sys.getswitchinterval()

    def add() -> None:
        for number in range(300):
            redactor.add(f"secret-number-{number}")

    adding = threading.Thread(target=add)
    sys.setswitchinterval(1e-5)
    try:
        adding.start()
        while adding.is_alive():
            redactor.text("secret-number-0 and more words")
    finally:
        sys.setswitchinterval(switch_s)
        adding.join()
    assert redactor.text("secret-number-299") == "***"
