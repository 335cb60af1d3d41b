"""The address of a store, and where its requests name the bucket."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit

AddressingStyle = Literal["auto", "path", "virtual"]
_VIRTUAL_ONLY = ("aliyuncs.com", "myqcloud.com", "volces.com")
"""Domains of stores that refuse the bucket in the path: Alibaba OSS, Tencent COS, Volcengine TOS."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A store.

    Args:
        region: AWS region; None means the region of boto3's configuration.
        url: Address of the store; None means AWS.
        addressing_style: `path` names the bucket in the path, `virtual` in the host name. `auto` is `virtual` for AWS
            and for stores that accept nothing else, and `path` for all others: few have a host name for each bucket.
    """

    region: str | None = None
    url: str | None = None
    addressing_style: AddressingStyle = "auto"

    @property
    def boto_addressing_style(self) -> AddressingStyle:
        """The style in boto3's configuration. Its `auto` is `virtual` for every bucket whose name allows it."""
        if self.addressing_style != "auto" or self.url is None:
            return self.addressing_style
        host = urlsplit(self.url).hostname or ""
        return "virtual" if host.endswith(tuple(f".{domain}" for domain in _VIRTUAL_ONLY)) else "path"


def has_ip_address(url: str) -> bool:
    """Whether a URL names its host by an IP address, which cannot have the bucket in front of it."""
    try:
        ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return False
    return True
