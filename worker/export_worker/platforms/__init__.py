"""Everything that the author of a driver needs, under one name. See worker/PLATFORMS.md.

    from export_worker.platforms import Driver, HttpClient, Submitted

Packages outside of export-worker import from here, so that the modules below can be moved. A name is
imported when it is first used: importing this package alone loads neither aiohttp nor pydantic. Types are declared in
`__init__.pyi`.
"""

from importlib import import_module

_MODULE_OF = {
    "Auth": "export_worker.platforms.http.outgoing",
    "AuthSpec": "export_worker.contract.auth",
    "CALL_TIMEOUT_S": "export_worker.platforms.http.client",
    "Call": "export_worker.platforms.http.client",
    "Cancelling": "export_worker.platforms.base",
    "Catalog": "export_worker.platforms.base",
    "Checking": "export_worker.platforms.base",
    "ClientCredentialsAuth": "export_worker.platforms.http.oauth",
    "Computed": "export_worker.platforms.base",
    "Configured": "export_worker.platforms.settings",
    "ConnectionSettings": "export_worker.platforms.settings",
    "Credential": "export_worker.platforms.http.outgoing",
    "Direct": "export_worker.platforms.base",
    "DirectRest": "export_worker.platforms.base",
    "Discarding": "export_worker.platforms.base",
    "Document": "export_worker.platforms.http.graphql",
    "Download": "export_worker.platforms.base",
    "Downloader": "export_worker.platforms.http.downloads",
    "Driver": "export_worker.platforms.base",
    "ExportKind": "export_worker.contract.request",
    "GraphQL": "export_worker.platforms.http.graphql",
    "HttpClient": "export_worker.platforms.http.client",
    "HttpResponse": "export_worker.platforms.http.responses",
    "OAuth": "export_worker.platforms.http.oauth",
    "OAuthAuth": "export_worker.contract.auth",
    "Operation": "export_worker.platforms.operations",
    "OperationFailed": "export_worker.lifecycle.observations",
    "Operations": "export_worker.platforms.operations",
    "Outgoing": "export_worker.platforms.http.outgoing",
    "Parameter": "export_worker.platforms.operations",
    "Pending": "export_worker.lifecycle.observations",
    "Polled": "export_worker.lifecycle.observations",
    "Preview": "export_worker.contract.dry_run",
    "Previewing": "export_worker.platforms.base",
    "Ready": "export_worker.lifecycle.observations",
    "Receiver": "export_worker.platforms.base",
    "Redactor": "export_worker.credentials",
    "RemoteFile": "export_worker.lifecycle.observations",
    "ResumePoint": "export_worker.platforms.base",
    "RestReceiver": "export_worker.platforms.base",
    "Resuming": "export_worker.platforms.base",
    "SUBMIT_TIMEOUT_S": "export_worker.platforms.http.client",
    "Secret": "export_worker.secrets.secret",
    "SecretAuth": "export_worker.platforms.http.auth",
    "StaticAuth": "export_worker.platforms.http.auth",
    "Submitted": "export_worker.lifecycle.observations",
    "UPLOAD_TIMEOUT_S": "export_worker.platforms.http.client",
    "Upload": "export_worker.platforms.base",
    "Versioned": "export_worker.platforms.base",
    "authorization": "export_worker.platforms.http.auth",
    "build_auth": "export_worker.platforms.http.auths",
    "check_header_value": "export_worker.platforms.http.auth",
    "check_submit": "export_worker.step_context",
    "count_of": "export_worker.platforms.http.values",
    "error_for": "export_worker.platforms.http.responses",
    "id_text": "export_worker.platforms.http.values",
    "json_value": "export_worker.platforms.http.responses",
    "one_line": "export_worker.platforms.http.responses",
    "platform_settings": "export_worker.platforms.settings",
    "reading_answer": "export_worker.platforms.http.responses",
    "reveal": "export_worker.credentials",
    "state_of": "export_worker.platforms.http.values",
    "storable_text": "export_worker.platforms.http.responses",
    "wait_for_gate": "export_worker.step_context",
    "whole_number": "export_worker.platforms.http.values",
}
"""Public name → the module that defines it."""

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used (PEP 562)."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_MODULE_OF)
