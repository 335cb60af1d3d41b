"""The kind of export that a request can name. Producers load this module, too, so it imports only the contract."""

from typing import Annotated, ClassVar, Literal

from pydantic import StringConstraints

from export_worker.contract.kinds import OtherKind


class TinyListUsers(OtherKind):
    """The users of one list."""

    platform: ClassVar[str] = "tiny"
    kind: Literal["tiny.list_users"] = "tiny.list_users"
    list_name: Annotated[str, StringConstraints(pattern=r"^[a-z]{1,24}$")]
    """The name of the list, 1 to 24 lower-case letters. Required."""
