"""The export request: what is exported, from which platform, and how the files are written."""

import json
from collections.abc import Iterator
from hashlib import sha256
from operator import not_
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from export_worker.contract.field_types import (
    BaseTime,
    HashId,
    Key,
    Name,
    PathKey,
    PathText,
    PlatformCharset,
    PositiveId,
    Seconds,
    SectionName,
    TrimmedName,
    UtcTime,
)
from export_worker.contract.kind_names import PLATFORM_OF_KIND
from export_worker.contract.kind_union import KindUnion
from export_worker.contract.kinds import Kind, OtherKind
from export_worker.contract.model import Model, field_rule
from export_worker.contract.output import Output

METADATA_MAX_BYTES = 4096
"""The metadata is in the record, in every status and in every event, so it must be small."""

PROPERTIES_MAX = 60
"""GrowingIO REST: a query with more properties fails (segment-profile document)."""


def _once_each(texts: list[str]) -> list[str]:
    if len(set(texts)) < len(texts):
        raise ValueError("must not contain a value twice")
    return texts


def _small_metadata(metadata: dict[str, str]) -> dict[str, str]:
    size = len(json.dumps(metadata, ensure_ascii=False).encode())
    if size > METADATA_MAX_BYTES:
        raise ValueError(f"has {size} bytes as JSON; at most {METADATA_MAX_BYTES} are allowed")
    return metadata


Priority = Literal["high", "normal", "low"]
"""The classes in which exports wait."""
NORMAL: Priority = "normal"
"""The class of a request that names none."""


def _is_normal(priority: object) -> bool:
    return priority == NORMAL


TagType = Literal["text", "number", "time", "list"]
"""ThinkingData: the type of a tag's values."""


class GrowingioTagUsers(Kind):
    """The users of one tag (GrowingIO GraphQL)."""

    kind: Literal["growingio.tag_users"] = "growingio.tag_users"
    tag_key: Key | None = None
    """The key of the tag: 1 to 256 letters, digits or `_$#.:-`. Default: none; then `tag_id` is needed."""
    tag_id: HashId | None = None
    """The id of the tag: 8 letters or digits, such as `WlGk4Daj`. Default: none; then `tag_key` is needed."""
    properties: list[Name] | None = None
    """User properties that the file also has, each 1 to 512 characters. Default: what the platform chooses."""
    charset: PlatformCharset | None = None
    """The charset in which the platform writes the file, such as `UTF-16LE`, at most 40 characters.

    Default: the charset that the platform chooses."""
    detail_export: bool | None = None
    """Whether the file has the detailed layout (true) or the concise one (false). Default: what the platform
    chooses."""
    file_name: Name | None = None
    """The name of the file, without its extension, 1 to 512 characters. Not every deployment supports it.

    Default: what the platform chooses."""

    @model_validator(mode="after")
    def _one_tag(self) -> Self:
        if (self.tag_key is None) == (self.tag_id is None):
            raise field_rule("tag_key", "exactly one of tag_key and tag_id is needed")
        return self


class GrowingioSegmentUsers(Kind):
    """The users of one segment (GrowingIO GraphQL); `tags` and `properties` add columns."""

    kind: Literal["growingio.segment_users"] = "growingio.segment_users"
    project_id: HashId
    """The id of the project: 8 letters or digits, such as `WlGk4Daj`. Required."""
    segment_id: HashId | None = None
    """The id of the segment: 8 letters or digits, such as `qgQMXnD3`. Required, unless `segment_name` is given.

    Default: none."""
    tags: list[HashId] | None = None
    """Ids of tags that become further columns, each 8 letters or digits. Default: none."""
    properties: list[Name] | None = None
    """User properties that become further columns, each 1 to 512 characters. Default: none."""
    charset: PlatformCharset | None = None
    """The charset in which the platform writes the file, such as `UTF-16LE`, at most 40 characters.

    Default: the charset that the platform chooses."""
    segment_name: Name | None = None
    """The name of the segment, in place of its id, 1 to 512 characters. Default: none. The worker looks the id up when
    it submits the export. Two segments of the project must not have this name."""

    @model_validator(mode="after")
    def _one_segment(self) -> Self:
        if self.segment_id is None and self.segment_name is None:
            raise field_rule("segment_id", "is required, unless segment_name is given")
        if self.segment_id is not None and self.segment_name is not None:
            raise field_rule("segment_name", "must not be given together with segment_id")
        return self


class GrowingioAnalysis(Kind):
    """The table of one analysis (GrowingIO GraphQL)."""

    kind: Literal["growingio.analysis"] = "growingio.analysis"
    project_id: HashId
    """The id of the project: 8 letters or digits, such as `WlGk4Daj`. Required."""
    analysis_id: HashId
    """The id of the analysis: 8 letters or digits, such as `qgQMXnD3`. Required."""
    analysis_type: Literal["CHARTS", "FUNNELS", "RETENTIONS", "FREQUENCIES"]
    """The type of the analysis. Required."""
    charset: PlatformCharset | None = None
    """The charset in which the platform writes the file, such as `UTF-16LE`, at most 40 characters.

    Default: the charset that the platform chooses."""


class _RestFile(Kind):
    properties: Annotated[list[Name], Field(max_length=PROPERTIES_MAX)] | None = None
    """User properties that the file has, at most 60, each 1 to 512 characters. Default: what the platform chooses."""
    file_format: Literal["csv", "json"] | None = None
    """The format of the file: `csv` or `json`. Default: what the platform chooses."""
    csv_header_type: Literal["key", "name"] | None = None
    """Whether the header of a CSV file has the keys or the names of the properties: `key` or `name`.

    Default: what the platform chooses."""

    @model_validator(mode="after")
    def _header_of_csv(self) -> Self:
        if self.csv_header_type is not None and self.file_format == "json":
            raise field_rule("csv_header_type", "is allowed only with file_format csv")
        return self


class GrowingioSegmentProfileUsers(_RestFile):
    """The users of one segment profile (GrowingIO REST)."""

    kind: Literal["growingio.segment_profile_users"] = "growingio.segment_profile_users"
    project_id: PathKey
    """The id of the project: 1 to 128 letters, digits, `_` or `-`. Required."""
    segment_key: PathText
    """The key of the segment, in any language: 1 to 128 characters without spaces, `/`, `\\`, `?`, `#` and `%`.

    Required."""


class GrowingioUserTagUsers(_RestFile):
    """The users of one tag (GrowingIO REST), of one project or of the whole data centre."""

    kind: Literal["growingio.user_tag_users"] = "growingio.user_tag_users"
    tag_key: PathText
    """The key of the tag, in any language: 1 to 128 characters without spaces, `/`, `\\`, `?`, `#` and `%`.
    Required."""
    project_id: PathKey | None = None
    """The id of the project: 1 to 128 letters, digits, `_` or `-`. Default: none; then the tag is one of the data
    centre."""
    in_space: bool | None = None
    """Whether the tag of a project is one of the connection's space (`space_id`). With false, it is one of the project
    itself, which version 4.x has beside the tags of spaces. Default: true."""


class ThinkingdataClusterUsers(Kind):
    """The users of one cluster or tag (ThinkingData). It is refreshed first unless `refresh` is false."""

    kind: Literal["thinkingdata.cluster_users"] = "thinkingdata.cluster_users"
    project_id: PositiveId
    """The number of the project, above 0. Required."""
    cluster_id: PositiveId | None = None
    """The number of the cluster or tag, above 0. Default: none; then `cluster_name` is needed."""
    cluster_name: TrimmedName | None = None
    """The name of the cluster or tag, 1 to 512 characters; blanks around it are removed.

    Default: none; then `cluster_id` is needed."""
    catalog: Literal["cluster", "tag"] = "cluster"
    """Whether the users of a cluster or of a tag are exported: `cluster` or `tag`. Default `cluster`."""
    refresh: bool = True
    """Whether the platform computes the cluster again first. Default: true."""
    columns: Annotated[list[Name], Field(min_length=1)] | None = None
    """Columns of the table of users, at least one, each 1 to 512 characters. Default: `user_columns` of the
    connection."""
    file_format: Literal["csv", "json"] | None = None
    """The format of the file: `csv` or `json`. Default: `csv`."""
    tag_type: TagType | None = None
    """The type of the values of a tag: `text`, `number`, `time` or `list`. The platform keeps each type in a column of
    its own. Only with `catalog` `tag`. Default: `text`."""
    join_key: Name | None = None
    """The column of the table of users that identifies the members: `#user_id`, or the column whose texts were
    uploaded, such as `#account_id`. 1 to 512 characters. Default: `join_key` of the connection."""

    @model_validator(mode="after")
    def _one_cluster(self) -> Self:
        if (self.cluster_id is None) == (self.cluster_name is None):
            raise field_rule("cluster_id", "exactly one of cluster_id and cluster_name is needed")
        if self.tag_type is not None and self.catalog != "tag":
            raise field_rule("tag_type", "is allowed only with catalog tag")
        return self


class SensorsdataUserGroupUsers(Kind):
    """The users of one user group (Sensors Data). It is computed first unless `execute` is false."""

    kind: Literal["sensorsdata.user_group_users"] = "sensorsdata.user_group_users"
    group_id: PositiveId
    """The number of the user group, above 0. Required."""
    execute: bool = True
    """Whether the platform computes the group again first. Default: true."""
    base_times: Annotated[list[BaseTime], Field(min_length=1), AfterValidator(_once_each)] | None = None
    """The times of partitions, at least one, such as `2026-11-22 03:00:00`. Default: the latest partition."""
    columns: Annotated[list[Name], Field(min_length=1)] | None = None
    """Columns of the table of users, at least one, each 1 to 512 characters. Default: `columns` of the connection."""
    file_format: Literal["csv", "json"] | None = None
    """The format of the file: `csv` or `json`. Default: `csv`."""


class _HorizonUsers(Kind):
    evaluate: bool = True
    """Whether the platform computes the version of `base_time` first. Default: true."""
    base_time: UtcTime | None = None
    """The time of the version, in UTC, such as `2026-11-21T16:00:00Z`. Default: today's midnight in the zone of the
    connection (`utc_offset`), or the newest version if that is later; with `evaluate` false, the newest version."""
    columns: Annotated[list[Name], Field(min_length=1)] | None = None
    """Columns of the table of users, at least one, each 1 to 512 characters. Default: `columns` of the connection."""
    file_format: Literal["csv", "json"] | None = None
    """The format of the file: `csv` or `json`. Default: `csv`."""


class SensorsdataSegmentUsers(_HorizonUsers):
    """The users of one segment (Sensors Data, `api = "horizon"`). It is computed first unless `evaluate` is false."""

    kind: Literal["sensorsdata.segment_users"] = "sensorsdata.segment_users"
    segment_name: Name
    """The name of the segment, such as `user_segment_vip`, 1 to 512 characters. Required."""


class SensorsdataTagUsers(_HorizonUsers):
    """The users with a value of one tag (Sensors Data, `api = "horizon"`), and the value as the last column.

    The tag is computed first unless `evaluate` is false.
    """

    kind: Literal["sensorsdata.tag_users"] = "sensorsdata.tag_users"
    tag_name: Name
    """The name of the tag, such as `user_tag_level`, 1 to 512 characters. Required."""


OurKind = (
    GrowingioTagUsers
    | GrowingioSegmentUsers
    | GrowingioAnalysis
    | GrowingioSegmentProfileUsers
    | GrowingioUserTagUsers
    | ThinkingdataClusterUsers
    | SensorsdataUserGroupUsers
    | SensorsdataSegmentUsers
    | SensorsdataTagUsers
)


_KINDS = KindUnion(get_args(OurKind))
kind_models, kind_model = _KINDS.models, _KINDS.model

ExportKind = Annotated[OurKind | OtherKind, _KINDS]
"""What is exported. `OtherKind` represents all kinds of other packages and of recipes."""


class ExportRequest(Model):
    """One export, as a producer requests it."""

    # The kinds of other packages are loaded with the first request, not when this module is imported.
    model_config = ConfigDict(defer_build=True)

    connection: SectionName
    """The name of a connection in the configuration of the workers: 1 to 64 letters, digits, `_` or `-`. Required."""
    export: ExportKind
    """What is exported. Its `kind` decides its other fields. Required."""
    output: Output = Output()
    """How the files are written. Default: as the platform sends them."""
    idempotency_key: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    """The same key with the same request returns the first export. With another request, it is refused.

    1 to 255 characters. Default: none."""
    deadline_s: Seconds | None = None
    """Seconds from the acceptance, or from the last retry, until the export fails.

    0.001 to 2,592,000 (30 days). Default: `poll.deadline_s` of the connection."""
    metadata: Annotated[dict[str, str], AfterValidator(_small_metadata)] = {}
    """Texts that every status and event of the export repeats. At most 4,096 bytes as JSON. Default: none."""
    notify: Annotated[list[SectionName], Field(min_length=1, max_length=20)] | None = None
    """The names of the sinks that get the completion event, 1 to 20. Default: all sinks."""
    # Left out of the JSON unless it is set: an older worker can read the request, and its fingerprint stays the same.
    share: Annotated[bool, Field(exclude_if=not_)] = False
    """Whether open exports with this field, and with the same connection, export and output, use one operation of the
    platform. Each has an id, an event and files of its own. Default: false."""

    # Added later, so it is left out of the JSON unless it is set: see `Output`.
    priority: Annotated[Priority, Field(exclude_if=_is_normal)] = NORMAL
    """Whether the export waits before or after others of its connection: `high`, `normal` or `low`.

    Exports of the same priority wait in turns of those who request them. Default: `normal`."""

    @model_validator(mode="after")
    def _parquet_of_csv(self) -> Self:
        if self.output.format == "parquet" and getattr(self.export, "file_format", None) == "json":
            raise field_rule(
                "output.format", "Parquet is made from CSV: leave out export.file_format, or set it to csv"
            )
        return self

    @property
    def kind(self) -> str:
        """The kind of the export, e.g. `growingio.segment_users`."""
        return self.export.kind

    @property
    def platform(self) -> str:
        """The platform that offers this kind."""
        export = self.export
        return export.platform if isinstance(export, OtherKind) else PLATFORM_OF_KIND[export.kind]

    def fingerprint(self) -> str:
        """Returns a digest of everything but the idempotency key. Equal requests have equal fingerprints."""
        return sha256(json.dumps(self.compared(), sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def sharing_digest(self) -> str | None:
        """Returns a digest that requests have in common if they share one operation; None without `share`."""
        if not self.share:
            return None
        shared = self.model_dump(mode="json", include={"connection", "export", "output"}, exclude_none=True)
        return sha256(json.dumps(shared, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def differences(self, other: "ExportRequest") -> tuple[str, ...]:
        """Returns the fields in which two requests differ, sorted. Equal fingerprints have no differences."""
        ours, theirs = dict(_fields(self.compared())), dict(_fields(other.compared()))
        return tuple(sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)))

    def compared(self) -> dict[str, Any]:
        """Returns what makes two requests with the same idempotency key the same."""
        return self.model_dump(mode="json", exclude={"idempotency_key"}, exclude_none=True)


def _fields(document: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each value of a document with the path of its field, e.g. `export.segment_id`."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
