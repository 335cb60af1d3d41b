"""Storage settings: how a connection's settings replace those of `[s3]`, and which calls get which arguments."""

import pytest
from pydantic import ValidationError

from export_worker.s3.settings import BUCKET_DEFAULTS, StorageSettings

ROLE_ARN = "arn:aws:iam::123456789012:role/exports"
BASE = StorageSettings(
    server_side_encryption="aws:kms",
    sse_kms_key_id="alias/exports",
    tags={"team": "data"},
    storage_class="STANDARD_IA",
    expected_bucket_owner="123456789012",
    role_arn=ROLE_ARN,
    external_id="x-7",
)


def test_merged_over_inherits_settings_that_are_not_set() -> None:
    assert BUCKET_DEFAULTS.merged_over(BASE) == BASE
    assert BASE.merged_over(BUCKET_DEFAULTS) == BASE
    own = StorageSettings(tags={"team": "ads"}).merged_over(BASE)
    assert own == BASE.model_copy(update={"tags": {"team": "ads"}})


def test_merged_over_replaces_key_with_algorithm_and_external_id_with_role() -> None:
    own = StorageSettings(server_side_encryption="AES256", role_arn=f"{ROLE_ARN}-2").merged_over(BASE)
    assert (own.server_side_encryption, own.sse_kms_key_id) == ("AES256", None)
    assert (own.role_arn, own.external_id) == (f"{ROLE_ARN}-2", None)


def test_call_arguments_of_objects_are_added_only_to_calls_that_create_one() -> None:
    accepted = {"ExpectedBucketOwner": None}
    assert BASE.call_arguments("UploadPart", accepted) == {"ExpectedBucketOwner": "123456789012"}
    assert BASE.call_arguments("CreateBucket", {}) == {}
    assert BUCKET_DEFAULTS.call_arguments("PutObject", accepted) == {}
    assert StorageSettings(tags={"a b": "c/d", "é": ""}).call_arguments("PutObject", {}) == {
        "Tagging": "a%20b=c%2Fd&%C3%A9="
    }


@pytest.mark.parametrize("account", ["123456789012", "", "RGW12345678901234567", "tenant-1"])
def test_role_arn_of_any_store_is_accepted(account: str) -> None:
    arn = f"arn:aws:iam::{account}:role/application_abc/S3Access"
    assert StorageSettings(role_arn=arn).role_arn == arn


@pytest.mark.parametrize("tags", [{"a\nb": "c"}, {"a": "b\tc"}, {"a": "b&c"}, {"aws:a": "b"}, {"": "b"}])
def test_tags_that_s3_refuses_are_invalid(tags: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="tags"):
        StorageSettings(tags=tags)
