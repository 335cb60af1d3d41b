"""Where requests to a store name the bucket."""

from typing import Any

import pytest
from pydantic import ValidationError

from export_worker.config.s3 import S3Settings
from export_worker.s3.endpoints import AddressingStyle, Endpoint


@pytest.mark.parametrize(
    ("url", "style", "expected"),
    [
        (None, "auto", "auto"),
        (None, "path", "path"),
        ("https://s3.example.com", "auto", "path"),
        ("http://127.0.0.1:9000", "auto", "path"),
        ("https://s3.example.com", "virtual", "virtual"),
        ("https://oss-cn-shanghai.aliyuncs.com", "auto", "virtual"),
        ("https://S3.OSS-cn-hangzhou-internal.aliyuncs.com/", "auto", "virtual"),
        ("https://cos.ap-guangzhou.myqcloud.com", "auto", "virtual"),
        ("https://tos-s3-cn-beijing.volces.com", "auto", "virtual"),
        ("https://oss-cn-shanghai.aliyuncs.com", "path", "path"),
        ("https://notaliyuncs.com", "auto", "path"),
        ("https://aliyuncs.com.example.com", "auto", "path"),
    ],
)
def test_style_is_chosen_by_setting_and_host(url: str | None, style: AddressingStyle, expected: str) -> None:
    assert Endpoint("us-east-1", url, style).boto_addressing_style == expected


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000", "http://[::1]:9000"])
def test_virtual_style_with_an_ip_address_is_refused(url: str) -> None:
    settings: dict[str, Any] = {"endpoint_url": url, "addressing_style": "virtual"}
    with pytest.raises(ValidationError, match="needs an endpoint_url with a host name"):
        S3Settings(**settings)
