"""The role that is assumed for S3, by botocore's own means: fetched with the first call, and anew before it expires."""

from collections.abc import Callable
from functools import partial
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)

from export_worker.s3.settings import StorageSettings

SESSION_NAME = "export-worker"
ASKING = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})
"""Every call to S3 waits meanwhile; by itself botocore would hold them for five minutes when STS is silent."""

OnSecret = Callable[[str | None], None]


def ignore_secret(secret: str | None) -> None:
    """Learns nothing, for where nothing is logged."""
    del secret


def session_for(storing: StorageSettings, region: str | None, learn: OnSecret = ignore_secret) -> boto3.session.Session:
    """A session of boto3 with its own credentials, or with those of the role that the settings name.

    Not on the loop: it reads files and may ask the instance it runs on. STS is asked by the first call to S3 only.

    Args:
        storing: Name role, external id and STS.
        region: Of STS.
        learn: Told each secret of the role when it is fetched.
    """
    if storing.role_arn is None:
        return process_session()
    provider = _RoleProvider(storing.role_arn, storing, region, learn)
    session = botocore.session.Session()
    session.register_component("credential_provider", CredentialResolver([provider]))
    return boto3.session.Session(botocore_session=session)


def process_session() -> boto3.session.Session:
    """A session with the process's own credentials. These may come from STS as well, by a web identity or a profile."""
    return boto3.session.Session(botocore_session=_asking())


def _asking() -> botocore.session.Session:
    session = botocore.session.Session()
    session.set_default_client_config(ASKING)
    return session


class _RoleProvider(CredentialProvider):
    """Hands out the role's credentials; none when there are no credentials to assume it with."""

    METHOD = "assume-role"

    def __init__(self, role_arn: str, storing: StorageSettings, region: str | None, learn: OnSecret) -> None:
        super().__init__()
        self._role_arn = role_arn
        self._storing = storing
        self._region = region
        self._learn = learn

    def load(self) -> DeferredRefreshableCredentials | None:
        own = _asking()
        credentials = own.get_credentials()
        if credentials is None:
            return None
        create = partial(own.create_client, region_name=self._region, endpoint_url=self._storing.sts_endpoint_url)
        more = {"RoleSessionName": self._storing.role_session_name or SESSION_NAME}
        if self._storing.external_id:
            more["ExternalId"] = self._storing.external_id
        fetcher = AssumeRoleCredentialFetcher(create, credentials, self._role_arn, extra_args=more)

        def fetch() -> dict[str, Any]:
            fetched = fetcher.fetch_credentials()
            for name in ("access_key", "secret_key", "token"):
                self._learn(fetched[name])
            return fetched

        return DeferredRefreshableCredentials(fetch, self.METHOD)
