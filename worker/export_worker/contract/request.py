"""The export request: what may be exported, from which platform, and how it shall land."""

import json
from datetime import datetime
from functools import reduce
from hashlib import sha256
from operator import or_
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, ConfigDict, Field, GetCoreSchemaHandler, StringConstraints, model_validator
from pydantic_core import CoreSchema

from export_worker.contract.kinds import OtherKind, other_kinds
from export_worker.contract.model import Model, field_rule
from export_worker.contract.output import Output
from export_worker.errors import ConfigError

METADATA_MAX_BYTES = 4096
"""Travels in the record, in every status and every event, so it stays small."""

PROPERTIES_MAX = 60
"""GrowingIO REST: the query fails above it (its segment-profile document)."""


def _real_time(text: str) -> str:
    try:
        datetime.strptime(text, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - the platform's own time, without a zone
    except ValueError:
        raise ValueError("must be a date and a time that there are") from None
    return text


def _once_each(texts: list[str]) -> list[str]:
    if len(set(texts)) < len(texts):
        raise ValueError("must not name one twice")
    return texts


def _small_metadata(metadata: dict[str, str]) -> dict[str, str]:
    size = len(json.dumps(metadata, ensure_ascii=False).encode())
    if size > METADATA_MAX_BYTES:
        raise ValueError(f"has {size} bytes as JSON; at most {METADATA_MAX_BYTES} are allowed")
    return metadata


Name = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Anything that a platform calls something, without control characters."""
HashId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{8}$")]
"""GrowingIO: 8 letters or digits (its GraphQL reference)."""
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_$#.:-]{1,256}$")]
"""A platform's key of a tag, segment or property; goes into paths, so it has no slash."""
PathKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
"""A project's id, which becomes one segment of a URL's path."""
PATH_TEXT_PATTERN = r"^[^\x00-\x20\x7f-\xa0/\\?#%.][^\x00-\x20\x7f-\xa0/\\?#%]{0,127}$"
"""Text that stays one segment of a URL's path once it is percent-encoded, whoever decodes it on the way, and how often:
no slash or backslash, nothing that would end a path or decode to something else, and no dot in front (`..`)."""
PathText = Annotated[str, StringConstraints(pattern=PATH_TEXT_PATTERN)]
"""A key in a URL's path that people may have chosen in their own language; percent-encoded there."""
PlatformCharset = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,39}$")]
"""Handed to the platform as it stands: no document lists what is accepted."""
SinkName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""As the configuration names a sink."""
Seconds = Annotated[float, Field(ge=0.001, le=30 * 86400, allow_inf_nan=False)]
BaseTime = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}$"),
    AfterValidator(_real_time),
]
"""Sensors Data: the time that a partition of a user group is of (its user-group document)."""
PositiveId = Annotated[int, Field(gt=0, le=2**63 - 1)]


class GrowingioTagUsers(Model):
    """The users of one tag (GrowingIO GraphQL)."""

    kind: Literal["growingio.tag_users"] = "growingio.tag_users"
    tag_key: Key | None = None
    tag_id: HashId | None = None
    properties: list[Name] | None = None
    charset: PlatformCharset | None = None
    detail_export: bool | None = None
    file_name: Name | None = None

    @model_validator(mode="after")
    def _one_tag(self) -> Self:
        if (self.tag_key is None) == (self.tag_id is None):
            raise field_rule("tag_key", "exactly one of tag_key and tag_id is needed")
        return self


class GrowingioSegmentUsers(Model):
    """The users of one segment (GrowingIO GraphQL); `tags` and `properties` add columns."""

    kind: Literal["growingio.segment_users"] = "growingio.segment_users"
    project_id: HashId
    segment_id: HashId
    tags: list[HashId] | None = None
    properties: list[Name] | None = None
    charset: PlatformCharset | None = None


class GrowingioAnalysis(Model):
    """The table of one analysis (GrowingIO GraphQL)."""

    kind: Literal["growingio.analysis"] = "growingio.analysis"
    project_id: HashId
    analysis_id: HashId
    analysis_type: Literal["CHARTS", "FUNNELS", "RETENTIONS", "FREQUENCIES"]
    charset: PlatformCharset | None = None


class _RestFile(Model):
    properties: Annotated[list[Name], Field(max_length=PROPERTIES_MAX)] | None = None
    file_format: Literal["csv", "json"] | None = None
    csv_header_type: Literal["key", "name"] | None = None

    @model_validator(mode="after")
    def _header_of_csv(self) -> Self:
        if self.csv_header_type is not None and self.file_format == "json":
            raise field_rule("csv_header_type", "is for file_format csv only")
        return self


class GrowingioSegmentProfileUsers(_RestFile):
    """The users of one segment profile (GrowingIO REST)."""

    kind: Literal["growingio.segment_profile_users"] = "growingio.segment_profile_users"
    project_id: PathKey
    segment_key: PathText


class GrowingioUserTagUsers(_RestFile):
    """The users of one tag (GrowingIO REST), of one project or of the whole data centre."""

    kind: Literal["growingio.user_tag_users"] = "growingio.user_tag_users"
    tag_key: PathText
    project_id: PathKey | None = None


class ThinkingdataClusterUsers(Model):
    """The users of one cluster or tag (ThinkingData), refreshed before unless `refresh` is false."""

    kind: Literal["thinkingdata.cluster_users"] = "thinkingdata.cluster_users"
    project_id: PositiveId
    cluster_id: PositiveId | None = None
    cluster_name: Name | None = None
    catalog: Literal["cluster", "tag"] = "cluster"
    refresh: bool = True
    columns: Annotated[list[Name], Field(min_length=1)] | None = None
    file_format: Literal["csv", "json"] | None = None

    @model_validator(mode="after")
    def _one_cluster(self) -> Self:
        if (self.cluster_id is None) == (self.cluster_name is None):
            raise field_rule("cluster_id", "exactly one of cluster_id and cluster_name is needed")
        return self


class SensorsdataUserGroupUsers(Model):
    """The users of one user group (Sensors Data), computed before unless `execute` is false."""

    kind: Literal["sensorsdata.user_group_users"] = "sensorsdata.user_group_users"
    group_id: PositiveId
    execute: bool = True
    base_times: Annotated[list[BaseTime], Field(min_length=1), AfterValidator(_once_each)] | None = None
    columns: Annotated[list[Name], Field(min_length=1)] | None = None
    file_format: Literal["csv", "json"] | None = None


OurKind = (
    GrowingioTagUsers
    | GrowingioSegmentUsers
    | GrowingioAnalysis
    | GrowingioSegmentProfileUsers
    | GrowingioUserTagUsers
    | ThinkingdataClusterUsers
    | SensorsdataUserGroupUsers
)

PLATFORM_OF_KIND: dict[str, str] = {
    "growingio.tag_users": "growingio",
    "growingio.segment_users": "growingio",
    "growingio.analysis": "growingio",
    "growingio.segment_profile_users": "growingio-rest",
    "growingio.user_tag_users": "growingio-rest",
    "thinkingdata.cluster_users": "thinkingdata",
    "sensorsdata.user_group_users": "sensorsdata",
}
"""Of our own kinds."""


def kind_models() -> dict[str, type[Model]]:
    """Every kind that can be asked for, ours first, then those of other installed packages.

    Raises:
        ConfigError: A package adds a kind that cannot be loaded, or that is ours.
    """
    ours: dict[str, type[Model]] = {model.model_fields["kind"].default: model for model in get_args(OurKind)}
    others = other_kinds()
    if taken := ours.keys() & others.keys():
        raise ConfigError(f"the kind {min(taken)} is export-worker's own, but another package adds it, too")
    return ours | others


class _OfInstalledKinds:
    """Makes the type mean one of the kinds that are installed, told apart by `kind`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema, made when a model that has such a field is first used."""
        union: Any = reduce(or_, kind_models().values())
        return handler.generate_schema(Annotated[union, Field(discriminator="kind")])


ExportKind = Annotated[OurKind | OtherKind, _OfInstalledKinds()]
"""What is to be exported. `OtherKind` stands for all the kinds of other packages."""


class ExportRequest(Model):
    """One export, as a producer asks for it."""

    # Kinds of other packages are looked for when the first request is read or made, not when this is imported.
    model_config = ConfigDict(defer_build=True)

    connection: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    export: ExportKind
    output: Output = Output()
    idempotency_key: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    deadline_s: Seconds | None = None
    metadata: Annotated[dict[str, str], AfterValidator(_small_metadata)] = {}
    notify: Annotated[list[SinkName], Field(min_length=1, max_length=20)] | None = None
    """Names of the sinks that hear of the end; all of them if nothing is said."""

    @model_validator(mode="after")
    def _parquet_of_csv(self) -> Self:
        if self.output.format == "parquet" and getattr(self.export, "file_format", None) == "json":
            raise field_rule("output.format", "parquet is made of CSV: leave out export.file_format, or make it csv")
        return self

    @property
    def kind(self) -> str:
        """Such as `growingio.segment_users`."""
        return self.export.kind

    @property
    def platform(self) -> str:
        """The platform that offers this kind."""
        export = self.export
        return export.platform if isinstance(export, OtherKind) else PLATFORM_OF_KIND[export.kind]

    def fingerprint(self) -> str:
        """Digest of everything but the idempotency key: equal for requests that ask for the same."""
        body = self.model_dump(mode="json", exclude={"idempotency_key"}, exclude_none=True)
        return sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
