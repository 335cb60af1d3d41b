"""Sessions of boto3: with the process's own credentials, or with those of an assumed IAM role.

botocore assumes the role with the first call to S3, and again before the credentials expire.

A client of boto3 keeps the credentials with which it was built. If there were none at that moment, each of its calls
fails, even after credentials exist. So the clients here get `LateCredentials`, which find the credentials when a call
needs them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from threading import Lock

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    Credentials,
    DeferredRefreshableCredentials,
    ReadOnlyCredentials,
    RefreshableCredentials,
)
from botocore.exceptions import CredentialRetrievalError, NoCredentialsError
from botocore.loaders import Loader, create_loader

from export_worker.s3.bounded_http import BoundedSession
from export_worker.s3.errors import SpoiledCredentialsError
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

    Must not be called on the event loop: it reads files. Credentials are fetched only by the first call to S3.

    Args:
        settings: Name the role, its external id and the STS endpoint.
        region: Region of STS.
        on_secret: Called with each secret when it is fetched.
    """
    if settings.role_arn is None:
        return process_session(on_secret)
    return _session_with(LateCredentials(partial(_role_credentials, settings.role_arn, settings, region), on_secret))


def process_session(on_secret: OnSecret = ignore_secret) -> boto3.session.Session:
    """Returns a session with the process's own credentials. They may come from STS: by a web identity or a profile."""
    return _session_with(LateCredentials(_process_credentials, on_secret))


def late_credentials(session: boto3.session.Session) -> "LateCredentials":
    """Returns the credentials of a session of this module. The clients of the session share them."""
    credentials = session.get_credentials()
    if not isinstance(credentials, LateCredentials):
        raise TypeError("the session was not built by this module")
    return credentials


class LateCredentials(Credentials):
    """Credentials that are looked up when a call needs them.

    Threads may use them at the same time.

    Args:
        load: Looks them up; returns None if there are none.
        on_secret: Called with each secret when it is fetched.
    """

    method = "late"

    def __init__(self, load: Callable[[], Credentials | None], on_secret: OnSecret) -> None:
        self._load = load
        self._on_secret = on_secret
        self._lock = Lock()
        self._loaded: Credentials | None = None
        self._last: ReadOnlyCredentials | None = None

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Returns the credentials for one call.

        Raises:
            NoCredentialsError: There are none.
            CredentialRetrievalError: The source of the credentials gave none that are valid now.
            SpoiledCredentialsError: There are blanks or line ends around them.
        """
        with self._lock, _without_output():
            loaded = self._loaded = self._loaded or self._load()
        if loaded is None:
            raise NoCredentialsError
        try:
            # Without the lock: while one thread fetches new credentials, others may use those that have not expired.
            with _without_output():
                frozen = loaded.get_frozen_credentials()
        except RuntimeError as error:
            # botocore's error for credentials that have expired although they are new: the clock is ahead.
            raise CredentialRetrievalError(provider=self.method, error_msg=str(error)) from None
        if frozen != self._last:
            for secret in (frozen.access_key, frozen.secret_key, frozen.token):
                self._on_secret(secret and secret.strip())
            self._last = frozen
        spoiled = _spoiled_part(frozen)
        if spoiled:
            self.reload()  # they may be corrected at their source
            raise SpoiledCredentialsError(part=spoiled)
        return frozen

    def ready(self) -> ReadOnlyCredentials | None:
        """Returns the credentials of the last call if they can be used without waiting. Otherwise returns None.

        For calls on the event loop. What is new is first given to `get_frozen_credentials`, which masks and checks it.
        """
        loaded = self._loaded
        if isinstance(loaded, RefreshableCredentials):
            if loaded.refresh_needed():
                return None
        elif type(loaded) is not Credentials:
            return None
        frozen = loaded.get_frozen_credentials()
        return frozen if frozen == self._last else None

    def reload(self) -> None:
        """Looks them up again with the next call: they were refused, and may have been replaced at their source."""
        with self._lock:
            self._loaded = None


@contextmanager
def _without_output() -> Iterator[None]:
    """Removes what the source of the credentials has printed from an error. It may contain a secret."""
    try:
        yield
    except CredentialRetrievalError as error:
        provider = error.kwargs["provider"]
        raise CredentialRetrievalError(provider=provider, error_msg="what it printed is not shown here") from None


def _spoiled_part(credentials: ReadOnlyCredentials) -> str | None:
    """Returns the part with a blank or a line end around it, which no store accepts; None if there is none.

    A line end in a header would make urllib3 print the header.
    """
    parts = {
        "access key id": credentials.access_key,
        "secret access key": credentials.secret_key,
        "session token": credentials.token,
    }
    return next((part for part, secret in parts.items() if secret and _is_spoiled(secret)), None)


def _is_spoiled(secret: str) -> bool:
    return secret != secret.strip() or not secret.isprintable()


class _LateProvider(CredentialProvider):
    """Provides the same credentials in place of botocore's own chain."""

    METHOD = LateCredentials.method

    def __init__(self, credentials: LateCredentials) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> LateCredentials:
        return self._credentials


def _session_with(credentials: LateCredentials) -> boto3.session.Session:
    session = _botocore_session()
    session.register_component("credential_provider", CredentialResolver([_LateProvider(credentials)]))
    built = boto3.session.Session(botocore_session=session)
    # Each session of boto3 adds its own folder to the paths of the shared reader.
    paths = session.get_component("data_loader").search_paths
    paths[:] = dict.fromkeys(paths)
    return built


def _botocore_session() -> botocore.session.Session:
    """Returns a session with the process's own credentials, whose calls of STS are limited in time."""
    session = BoundedSession()
    session.set_default_client_config(STS_CONFIG)
    session.register_component("data_loader", _service_models(session.get_config_variable("data_path")))
    return session


@cache
def _service_models(data_path: str | None) -> Loader:
    """Returns botocore's reader of service models, which keeps what it has read.

    All sessions share it: to read the models again costs each of them about 70 ms of processor time and some MiB.
    """
    loader: Loader = create_loader(data_path)
    return loader


def _process_credentials() -> Credentials | None:
    """Looks up the process's own credentials. A new session, because a session reads its files only once."""
    credentials: Credentials | None = _botocore_session().get_credentials()
    return credentials


def _role_credentials(role_arn: str, settings: StorageSettings, region: str | None) -> Credentials | None:
    """Returns the role's credentials, or None if the process has no credentials to assume the role with."""
    own = _botocore_session()
    credentials = own.get_credentials()
    if credentials is None:
        return None
    create = partial(own.create_client, region_name=region, endpoint_url=settings.sts_endpoint_url)
    arguments = {"RoleSessionName": settings.role_session_name or SESSION_NAME}
    if settings.external_id:
        arguments["ExternalId"] = settings.external_id
    fetcher = AssumeRoleCredentialFetcher(create, credentials, role_arn, extra_args=arguments)
    return DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
