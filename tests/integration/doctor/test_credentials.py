"""What `doctor` and a worker say about AWS credentials that were copied with blanks or line ends."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from export_worker.doctor.s3 import check_s3
from export_worker.errors import StorageUnusableError
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from support.s3_server import s3_client, s3_credentials

NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@pytest.fixture(params=["line end", "blank", "carriage return"])
def ending(request: pytest.FixtureRequest) -> str:
    return {"line end": "\n", "blank": " ", "carriage return": "\r\n"}[request.param]


@pytest.fixture(params=NAMES)
def client(request: pytest.FixtureRequest, ending: str, endpoint: str) -> Iterator[Any]:
    with s3_credentials(), pytest.MonkeyPatch.context() as patch:
        patch.setenv(request.param, f"canary-part{ending}")
        with s3_client(endpoint) as client:
            yield client


async def test_doctor_names_a_blank_in_the_credentials(client: Any) -> None:
    (found,) = await check_s3(client, "bucket", "")
    assert found.level == "error"
    assert "ends with a blank or a line end" in found.says
    assert "canary-part" not in found.says + found.fix


async def test_worker_cannot_use_the_store_with_a_blank_in_the_credentials(client: Any) -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(StorageUnusableError, match="ends with a blank") as caught:
        await S3Store(client, executor).put(Target("bucket", "k", "e", "text/csv"), b"x")
    assert "canary-part" not in repr(caught.value)
