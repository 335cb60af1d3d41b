"""Makes an event smaller for a sink that does not take the whole one. Pure."""

import json


def without_objects(event: str) -> str | None:
    """Returns the event without `data.objects`. `objectsomitted` is their number, and the manifest lists them.

    The objects are the only part of an event without a small limit: an export can have ten thousand files.

    Returns:
        None if the event has no objects, so that it cannot become smaller.
    """
    document = json.loads(event)
    objects = document["data"].get("objects")
    if not objects:
        return None
    document["objectsomitted"] = len(objects)
    document["data"]["objects"] = []
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
