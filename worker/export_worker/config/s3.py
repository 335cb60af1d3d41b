"""The section `s3`."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from export_worker.config.section import Section
from export_worker.s3.object_keys import validate_key_template
from export_worker.s3.settings import StorageSettings


class S3Settings(StorageSettings, Section):
    """Where files land. Credentials come from boto3's own chain and nowhere else.

    Args:
        endpoint_url: Left out for AWS.
        key_template: Fields: kind, connection, date (of acceptance, UTC), export_id, file_name.
        sweep_uploads: Abort multipart uploads of ours that nobody will complete. Not for a bucket in which a second
            namespace writes under the same prefix: its exports are not known here.
        sweep_uploads_after_s: Only those that were begun longer ago.
    """

    bucket: Annotated[str, StringConstraints(min_length=3, max_length=255)] = "exports"
    prefix: str = ""
    region: str = "us-east-1"
    endpoint_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")] | None = None
    key_template: str = "{kind}/dt={date}/{export_id}/{file_name}"

    sweep_uploads: bool = True
    sweep_uploads_after_s: Annotated[float, Field(ge=3600)] = 86_400.0

    @model_validator(mode="after")
    def _template_works(self) -> Self:
        try:
            validate_key_template(self.key_template, self.prefix)
        except ValueError as error:
            raise ValueError(f"key_template {error}") from None
        return self
