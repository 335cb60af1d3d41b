"""TLS contexts that are made during a start read the authorities of the system with their first connection."""

import ssl
import sys
from types import ModuleType

import pytest

from export_producers.commands.late_authorities import late_authorities
from export_producers.commands.lean_imports import defer, hidden


def test_context_of_the_block_has_its_authorities_when_a_connection_is_wrapped() -> None:
    with late_authorities():
        context = ssl.create_default_context()
    usual = ssl.create_default_context()
    assert (context.cert_store_stats()["x509"], context.verify_mode) == (0, usual.verify_mode)
    for _ in range(2):
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
        assert context.cert_store_stats() == usual.cert_store_stats()


def test_context_after_the_block_reads_its_authorities_at_once() -> None:
    usual = ssl.create_default_context().cert_store_stats()
    with late_authorities():
        pass
    assert ssl.create_default_context().cert_store_stats() == usual


def test_hidden_package_counts_as_not_installed_in_the_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)  # another test may have imported it
    with hidden("colorsys"), pytest.raises(ModuleNotFoundError):
        __import__("colorsys")
    assert isinstance(__import__("colorsys"), ModuleType)


def test_deferred_package_is_imported_with_its_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "stringprep", raising=False)
    defer("stringprep")
    package = __import__("stringprep")
    assert package.__spec__ is None
    assert callable(package.in_table_a1)
    assert sys.modules["stringprep"].__spec__ is not None
