"""The repository contains no secret: neither a token of a known form, nor a password in a setting."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import ROOT

FORMS = {
    "an AWS access key": r"\b(?:AKIA|ASIA|AROA)[0-9A-Z]{16}\b",
    "an Aliyun access key": r"\bLTAI[0-9A-Za-z]{12,20}\b",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY",
    "a GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36,}\b",
    "a GitLab token": r"\bglpat-[0-9A-Za-z_-]{20,}\b",
    "a PyPI token": r"\bpypi-AgE[0-9A-Za-z_-]{40,}\b",
    "a Slack token": r"\bxox[abprs]-[0-9A-Za-z-]{10,}",
    "a Google key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "a JSON Web Token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a webhook's signing key": r"\bwhsec_[A-Za-z0-9+/=]{24,}",
}
"""Forms that no file may contain, tests included."""
ASSIGNED = {
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^\s/:@'\"{}<>$]*:(?P<value>[^\s/@'\"{}<>$*]{4,})@",
    "a secret under its name": r"(?i)\b(?:password|secret|secret_key|token|api_key|client_secret|access_key)"
    r"[\"']?\s*[:=]\s*[\"'](?P<value>[^\"'\s{}$<>\u0080-\uffff]{8,})[\"']",
}
"""Forms that no file outside of tests may contain. Tests have many canaries of these forms.

A secret under its name is in ASCII: a translation of a message about a password is none."""
REFERENCES = ("env:", "file:")
KNOWN = {
    "password": "the word in an example of an address, which a message has",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw": "the example key of the Standard Webhooks specification",
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD": "the previous key in tests of signatures; it is used nowhere else",
    "canary-token-5c1d9e70": "the token of the conformance suite, which nothing may log or store",
    "canary-oauth+secret/8b2f41aa": "the client secret of the conformance suite, which nothing may log or store",
}
"""Values that look like secrets and are none, with the reason."""


def tracked() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: the files of the repository are unknown")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def secrets_in(text: str, *, delivered: bool) -> Iterator[str]:
    """Yields each match as `KIND: FIRST CHARACTERS`."""
    for what, form in FORMS.items():
        for found in re.finditer(form, text):
            if found[0] not in KNOWN:
                yield f"{what}: {found[0][:8]}…"
    for what, form in ASSIGNED.items() if delivered else ():
        for found in re.finditer(form, text):
            if not found["value"].startswith(REFERENCES) and found["value"] not in KNOWN:
                yield f"{what}: {found['value'][:3]}…"


def test_repository_contains_no_secret() -> None:
    found = []
    for path in tracked():
        name = path.relative_to(ROOT)
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found += [f"{name}: {what}" for what in secrets_in(text, delivered=name.parts[0] != "tests")]
    assert found == []


def test_repository_contains_no_large_file() -> None:
    """A large file stays in the history after it is deleted."""
    large = {path.name: path.stat().st_size for path in tracked() if path.stat().st_size > 1_000_000}
    assert large == {}


@pytest.mark.parametrize(
    "text",
    [
        "key = AKIA" + "IOSFODNN7EXAMPLE",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "ghp_" + "a1B2" * 10,
        "redis://:" + "hunter22@redis.internal:6379/0",
        'token = "' + "0123456789abcdef" + '"',
        '{"client_secret": "' + "0123456789abcdef" + '"}',
    ],
)
def test_scan_finds_each_kind_of_secret(text: str) -> None:
    assert list(secrets_in(text, delivered=True))


@pytest.mark.parametrize(
    "text", ['token = "env:GIO_TOKEN"', 'api_key = "file:/run/secrets/key"', "redis://host:6379/0"]
)
def test_scan_ignores_references_to_secrets(text: str) -> None:
    assert not list(secrets_in(text, delivered=True))
