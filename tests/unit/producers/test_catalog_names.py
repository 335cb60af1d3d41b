"""The names of what exports ask for, which the console keeps from catalogs that were read."""

from datetime import UTC, datetime

import pytest

from export_producers.console.request_form.catalog_names import CATALOGS_MAX, KEPT_S, NAMES_MAX, CatalogNames
from export_worker.contract.status import Phase, Status

NOW = datetime(2026, 11, 30, tzinfo=UTC)
SEGMENT = {"kind": "growingio.segment_users", "project_id": "p", "segment_id": "s1"}


def status(export: object, connection: str = "gio", kind: str = "growingio.segment_users") -> Status:
    request = {"connection": connection, "export": export}
    fields = {"connection": connection, "kind": kind, "created_at": NOW, "updated_at": NOW, "request": request}
    return Status.model_validate({"export_id": "1", "phase": Phase.QUEUED, **fields})


@pytest.mark.parametrize(
    ("export", "kind", "name"),
    [
        (SEGMENT, "growingio.segment_users", "分群4"),
        (SEGMENT | {"segment_id": "s2"}, "growingio.segment_users", None),
        (SEGMENT | {"project_id": "q"}, "growingio.segment_users", None),
        (SEGMENT | {"segment_id": ["s1"]}, "growingio.segment_users", None),
        (SEGMENT, "growingio.tag_users", None),
        (SEGMENT, "other.kind", None),
        ("damaged", "growingio.segment_users", None),
    ],
)
def test_name_of_what_an_export_asks_for(export: object, kind: str, name: str | None) -> None:
    names = CatalogNames()
    names.add(("gio", "segments", "p"), [{"id": "s1", "name": "分群4"}, {"id": "s3", "name": None}, {"name": "x"}])
    assert names.of(status(export, kind=kind)) == name


def test_names_of_catalogs_are_bounded_and_expire() -> None:
    now_s = [0.0]
    names = CatalogNames(lambda: now_s[0])
    items = [{"id": f"s{number}", "name": f"name {number}"} for number in range(NAMES_MAX + 10)]
    for number in range(CATALOGS_MAX + 5):
        names.add((f"c{number}", "segments", "p"), items)
    assert [names.of(status(SEGMENT, connection)) for connection in ("c4", "c5")] == [None, "name 1"]
    assert names.of(status(SEGMENT | {"segment_id": f"s{NAMES_MAX + 1}"}, "c5")) is None
    now_s[0] += KEPT_S
    assert names.of(status(SEGMENT, "c5")) is None
