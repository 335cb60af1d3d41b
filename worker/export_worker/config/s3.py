"""The section `s3`."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from export_worker.config.section import Section
from export_worker.contract.wording import WEB_ADDRESS, Pattern
from export_worker.s3.endpoints import AddressingStyle, Endpoint, has_ip_address
from export_worker.s3.object_keys import MANIFEST_NAME, validate_key_template
from export_worker.s3.settings import BucketName, Integrity, StorageSettings


class S3Settings(StorageSettings, Section):
    """The bucket that files are written to. Credentials come only from boto3's own chain."""

    bucket: BucketName = "exports"
    """The name of the bucket. Default `exports`, 3 to 255 characters."""
    prefix: str = ""
    """Text before every object key, e.g. `exports/`. Default: empty."""
    region: str = "us-east-1"
    """The AWS region. Default `us-east-1`."""
    endpoint_url: Annotated[str, WEB_ADDRESS] | None = None
    """The address of a store other than AWS, http:// or https://. Default: AWS."""
    addressing_style: AddressingStyle = "auto"
    """Where requests name the bucket: `path`, `virtual` (in the host name) or `auto`. Default `auto`.

    `auto` is `virtual` for AWS, Alibaba OSS, Tencent COS and Volcengine TOS, and `path` for every other
    `endpoint_url`."""
    part_size_mib: Annotated[int, Field(ge=5, le=512)] | None = None
    """One size for all parts of a multipart upload (MiB), 5 to 512. Default: parts of 8 MiB that grow.

    Cloudflare R2 requires one size. It must not exceed `transfer.memory_mib`. A file whose length is not known may have
    at most 10,000 parts; parts of a longer file of known length are larger."""
    integrity: Integrity = "auto"
    """When Content-MD5 protects a body whose CRC the store does not confirm: `auto` or `always`. Default `auto`.

    `auto` sends it only over plain HTTP, since TLS detects damage on the way. `always` sends it over TLS, too: that
    detects damage behind the end of the TLS connection, and costs two CPU seconds a GiB."""
    key_template: str = "{kind}/dt={date}/{export_id}/{file_name}"
    """The object key of a file after the prefix. It must contain `{file_name}`.

    Default `{kind}/dt={date}/{export_id}/{file_name}`.

    The fields are `kind`, `connection`, `date` (of acceptance, in UTC), `export_id`, `file_name`, and
    `metadata.NAME`: the value that the request's metadata has under NAME. Of such a value, at most 100 bytes are
    used, and all but letters, digits and `-`, `_`, `.` is percent-encoded. If the request has no value, `NAME=` is
    followed by `__HIVE_DEFAULT_PARTITION__`, which readers of partitions return as null; elsewhere the value is
    `none`."""
    manifest_name: Annotated[
        str,
        Pattern(
            r"^([._][A-Za-z0-9._-]{1,60}|manifest)\.json$",
            "must begin with _ or ., end with .json, and have letters, digits, ., _ and -, such as _manifest.json",
        ),
    ] = MANIFEST_NAME
    """The file name of the manifest. Default `_manifest.json`; versions before 0.2 wrote `manifest.json`.

    It begins with `_` or `.`, because Spark, Athena, pandas and others read every other file of a folder as data."""
    sweep_uploads: bool = True
    """Whether to abort incomplete multipart uploads of exports that have ended or do not exist. Default: true.

    Turn it off if a second namespace writes to this bucket under the same prefix: its exports are unknown here."""
    sweep_uploads_after_s: Annotated[float, Field(ge=3600)] = 86_400.0
    """Only uploads older than this are aborted (seconds). Default 86,400 (a day), at least 3,600."""

    @property
    def part_bytes(self) -> int | None:
        """`part_size_mib` in bytes."""
        return None if self.part_size_mib is None else self.part_size_mib * 2**20

    @property
    def endpoint(self) -> Endpoint:
        """The store with its region and its addressing style."""
        return Endpoint(self.region, self.endpoint_url, self.addressing_style)

    @model_validator(mode="after")
    def _address_fits_style(self) -> Self:
        if self.addressing_style == "virtual" and self.endpoint_url and has_ip_address(self.endpoint_url):
            raise ValueError('addressing_style = "virtual" needs an endpoint_url with a host name, not an IP address')
        return self

    @model_validator(mode="after")
    def _template_is_valid(self) -> Self:
        try:
            validate_key_template(self.key_template, self.prefix)
        except ValueError as error:
            raise ValueError(f"key_template {error}") from None
        return self
