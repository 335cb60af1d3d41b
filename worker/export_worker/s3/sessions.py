"""Sessions of boto3: with the process's own credentials, or with those of an assumed IAM role.

botocore assumes the role with the first call to S3, and again before the credentials expire.
"""

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
STS_CONFIG = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})
"""Calls to S3 wait for STS. With botocore's defaults, an STS that does not answer would block them for five minutes."""

OnSecret = Callable[[str | None], None]
"""Receives a secret, so that it can be masked in logs; None if the credentials have no such part."""


def ignore_secret(secret: str | None) -> None:
    """Does nothing with a secret; for programs that log nothing."""
    del secret


def session_for(
    settings: StorageSettings, region: str | None, on_secret: OnSecret = ignore_secret
) -> boto3.session.Session:
    """Returns a session with the credentials of the IAM role in the settings, or else with the process's own.

    Must not be called on the event loop: it reads files and may ask the machine's metadata service. STS is called only
    by the first call to S3.

    Args:
        settings: Name the role, its external id and the STS endpoint.
        region: Region of STS.
        on_secret: Called with each secret of the assumed role when it is fetched.
    """
    if settings.role_arn is None:
        return process_session()
    provider = _AssumedRoleProvider(settings.role_arn, settings, region, on_secret)
    session = botocore.session.Session()
    session.register_component("credential_provider", CredentialResolver([provider]))
    return boto3.session.Session(botocore_session=session)


def process_session() -> boto3.session.Session:
    """Returns a session with the process's own credentials. They may come from STS: by a web identity or a profile."""
    return boto3.session.Session(botocore_session=_botocore_session())


def _botocore_session() -> botocore.session.Session:
    """Returns a session with the process's own credentials, whose calls of STS are limited in time."""
    session = botocore.session.Session()
    session.set_default_client_config(STS_CONFIG)
    return session


class _AssumedRoleProvider(CredentialProvider):
    """Provides the credentials of an assumed IAM role."""

    METHOD = "assume-role"

    def __init__(self, role_arn: str, settings: StorageSettings, region: str | None, on_secret: OnSecret) -> None:
        super().__init__()
        self._role_arn = role_arn
        self._settings = settings
        self._region = region
        self._on_secret = on_secret

    def load(self) -> DeferredRefreshableCredentials | None:
        """Returns the role's credentials, or None if the process has no credentials to assume the role with."""
        own = _botocore_session()
        credentials = own.get_credentials()
        if credentials is None:
            return None
        create = partial(own.create_client, region_name=self._region, endpoint_url=self._settings.sts_endpoint_url)
        arguments = {"RoleSessionName": self._settings.role_session_name or SESSION_NAME}
        if self._settings.external_id:
            arguments["ExternalId"] = self._settings.external_id
        fetcher = AssumeRoleCredentialFetcher(create, credentials, self._role_arn, extra_args=arguments)

        def fetch() -> dict[str, Any]:
            fetched = fetcher.fetch_credentials()
            for name in ("access_key", "secret_key", "token"):
                self._on_secret(fetched[name])
            return fetched

        return DeferredRefreshableCredentials(fetch, self.METHOD)
