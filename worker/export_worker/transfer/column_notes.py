"""What was done to the columns of an export, in its record and its manifest.

The rules of an export depend only on names, so one name means the same in all its files. In the record, each file notes
the names that no earlier file has. Otherwise ten thousand files would note the same names ten thousand times.
"""

from collections.abc import Iterable

from export_worker.contract.status import ManifestObject
from export_worker.transfer.transforms.column_rules import COLUMNS_MAX


def columns_of(stored: Iterable[ManifestObject]) -> dict[str, str] | None:
    """Returns what was done to columns of these files, by name; None if no rule applies to the export's columns."""
    noted = [item.columns for item in stored if item.columns is not None]
    return {name: action for columns in noted for name, action in columns.items()} if noted else None


def with_new_columns(item: ManifestObject, known: dict[str, str]) -> ManifestObject:
    """Returns a stored file that notes only names that are not known. Adds them to the known ones.

    Args:
        known: What `columns_of` returned for all files before.
    """
    if not item.columns:
        return item
    new = {name: action for name, action in item.columns.items() if name not in known}
    new = dict(list(new.items())[: COLUMNS_MAX - len(known)])
    known.update(new)
    return item.model_copy(update={"columns": new})
