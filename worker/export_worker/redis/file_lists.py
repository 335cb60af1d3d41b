"""The lists of a transfer with many files, stored apart from the rest of the record.

Every stored file is saved by a checkpoint. If the checkpoint wrote the lists of all files each time, ten thousand files
would cost fifty gigabytes of writes to Redis. So the list of the platform's files is written once, when the transfer
starts, and each stored file is appended to a list. Both are removed when the export leaves this phase: the state has
them then.

Short lists stay within the state, as in all records of earlier versions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from export_worker.contract.model import Model
from export_worker.contract.status import ManifestObject
from export_worker.lifecycle.export import EarlierFiles, Export, Transferring, status_of
from export_worker.lifecycle.observations import RemoteFile
from export_worker.redis.scripts import original_bytes

INLINE_FILES_MAX = 32
"""A state with so many files has 30 KiB at most, which a checkpoint writes within a millisecond."""

_STORED = TypeAdapter(list[ManifestObject])


class _Files(Model):
    """What stays the same with each stored file."""

    model_config = Model.model_config | {"extra": "ignore", "strict": False}

    files: list[RemoteFile]
    earlier_files: list[EarlierFiles] = []


def is_apart(export: Export) -> bool:
    """Returns whether the lists of this export are stored apart from its state."""
    return isinstance(export.state, Transferring) and len(export.state.files) > INLINE_FILES_MAX


def encode_record(export: Export) -> tuple[bytes, bytes]:
    """Returns the fields `state` and `status` of a record, without the lists that are stored apart."""
    apart = is_apart(export)
    exclude: Any = {"state": {"files", "stored"}, "earlier_files": True} if apart else None
    state = export.__pydantic_serializer__.to_json(export, exclude_none=True, exclude=exclude)
    status = status_of(export, with_objects=not apart)
    return state, status.__pydantic_serializer__.to_json(status)


def encode_lists(before: Export | None, after: Export) -> dict[str, object]:
    """Returns what a script writes of the lists that are stored apart. Nothing if they are not, or have not changed.

    Args:
        before: The export whose lists Redis has; None if it has none.
    """
    state = after.state
    if not is_apart(after) or not isinstance(state, Transferring):
        return {}
    if before is None or not _is_continued(before.state, state):
        files = _Files(files=state.files, earlier_files=after.earlier_files)
        return {"files": files.model_dump_json()} | _appended(0, state.stored)
    saved = len(before.state.stored) if isinstance(before.state, Transferring) else 0
    return _appended(saved, state.stored[saved:]) if len(state.stored) > saved else {}


def _is_continued(before: object, after: Transferring) -> bool:
    """Whether the files are the same, and further ones are stored. Compares identities: lists are never changed."""
    if not isinstance(before, Transferring) or before.files is not after.files:
        return False
    saved = len(before.stored)
    return len(after.stored) >= saved and (not saved or after.stored[saved - 1] is before.stored[-1])


def _appended(saved: int, stored: Sequence[ManifestObject]) -> dict[str, object]:
    return {"stored_before": saved, "stored": [item.model_dump_json() for item in stored]}


def read_state(item: Mapping[str, Any]) -> Export:
    """Reads the field `state` of a record, with the lists that are stored apart.

    Raises:
        ValidationError: The record is damaged, or was written by a newer worker.
    """
    state = original_bytes(item["state"])
    if "files" not in item:
        return Export.model_validate_json(state)
    lists = _Files.model_validate_json(original_bytes(item["files"]))
    stored = _STORED.validate_json(original_bytes(item["stored"]))
    document = from_json(state)
    # The lists are checked above. Within the state, each of them would be checked a second time.
    document["state"] |= {"files": []}
    export = Export.model_validate_json(to_json(document))
    full = export.state.model_copy(update={"files": lists.files, "stored": stored})
    return export.model_copy(update={"state": full, "earlier_files": lists.earlier_files})
