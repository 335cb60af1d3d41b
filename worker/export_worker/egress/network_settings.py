"""The settings that say how the requests of a connection or a webhook leave the network: proxy and certificates."""

from typing import Annotated

from pydantic import SecretStr, StringConstraints

from export_worker.contract.documented import Documented

File = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class NetworkSettings(Documented):
    """The proxy and the certificates of a connection or a webhook."""

    proxy: SecretStr | None = None
    """The proxy of all requests: `http://HOST:PORT` or `https://HOST:PORT`, with `USER:PASSWORD@` where it needs a
    login. It may be a reference (`env:NAME`, `file:/path`, `aws-sm:NAME`). Default: none.

    Special characters in the password must be percent-encoded. The whole address is masked. The proxy resolves host
    names, so it decides which addresses a name leads to; see SECURITY.md."""
    ca_file: File | None = None
    """A PEM file of authorities that are trusted besides those of the system, 1 to 4,096 characters. Default: none.

    It also applies to an https:// proxy. The worker reads a changed file again within 10 seconds."""
    client_cert: File | None = None
    """A PEM file with the client certificate and its chain, 1 to 4,096 characters. It may contain the key.

    Default: none. Only the server of the configured address receives it; servers of downloads elsewhere do not. The
    worker reads a changed file again within 10 seconds."""
    client_key: File | None = None
    """A PEM file with the key of `client_cert`, 1 to 4,096 characters. Default: the key is in `client_cert`."""
    client_key_password: SecretStr | None = None
    """The password of an encrypted key, or a reference to it. Default: none."""
    trust_env: bool = False
    """Whether `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` apply. Default: false.

    `proxy` has priority over the first three. With `true`, hosts in `NO_PROXY` are called directly."""
