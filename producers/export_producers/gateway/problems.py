"""Errors as RFC 9457 problems: our own errors, those of platforms, and those of aiohttp."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import structlog
from aiohttp import web

from export_producers.gateway.documents.schemas import PROBLEM_PREFIX, PROBLEM_TYPE, FieldError, Problem
from export_producers.queues.fan_out import QueueUnreachableError
from export_producers.readable import UnreadableRecordError
from export_worker.errors import (
    ErrorCode,
    ExportNotFoundError,
    ExportWorkerError,
    FieldProblem,
    IdempotencyConflictError,
    InvalidRequestError,
    ServiceUnreachableError,
    StepError,
)

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Server": "export-worker",
}
"""Sent with every response. Without an Access-Control header, browsers hide responses from pages of other origins."""
RETRY_AFTER_S = 5
"""`Retry-After` for an unreachable service that sends none itself. An immediate retry would fail again."""
UNREADABLE = "unreadable_record"
"""The code of the problem that a record cannot be read. A repetition gets the same answer."""
WHOLE_BODY = "request"
"""The field name of a problem that concerns the whole body, e.g. if it is not JSON."""

_log = structlog.get_logger(__name__)


class ProblemError(Exception):
    """An error that is specific to HTTP.

    Args:
        code: One word.
        detail: One line for people, without secrets.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers


def invalid_parameter(name: str, message: str) -> ProblemError:
    """Returns the error for an invalid parameter or header."""
    problem = FieldProblem(name, message)
    return ProblemError(400, ErrorCode.INVALID_REQUEST, str(problem), errors=[problem])


def code_of(error: Exception) -> str:
    """Returns the code of the problem that an error becomes."""
    match error:
        case ProblemError() | ExportWorkerError():
            return str(error.code)
        case web.HTTPException():
            return HTTPStatus(error.status).name.lower()
        case web.RequestPayloadError():
            return "bad_request"
        case UnreadableRecordError():
            return UNREADABLE
        case _:
            return str(ErrorCode.INTERNAL_ERROR)


def error_response(error: Exception) -> web.Response:
    """Returns the problem response for an error. An unexpected error is logged, and its text is not sent."""
    match error:
        case ProblemError():
            return problem_response(error.status, error.code, error.detail, errors=error.errors, headers=error.headers)
        case web.HTTPException():
            return _from_aiohttp(error)
        case ExportWorkerError():
            return _from_our_error(error)
        case UnreadableRecordError():
            return problem_response(502, UNREADABLE, str(error))
        case web.RequestPayloadError():
            return problem_response(400, "bad_request", "the body cannot be decoded as its headers announce it")
        case _:
            _log.error("request.crashed", exc_info=error)
            detail = "the gateway failed unexpectedly; its log has the reason"
            return problem_response(500, ErrorCode.INTERNAL_ERROR, detail)


def problem_response(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Returns a response with a problem document."""
    document = Problem(
        type=PROBLEM_PREFIX + code,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        errors=[FieldError(field=item.field, message=item.message) for item in errors],
    )
    body = document.model_dump_json().encode()
    return web.Response(
        status=status, body=body, headers={**SECURITY_HEADERS, **(headers or {}), "Content-Type": PROBLEM_TYPE}
    )


def status_response(status: int, detail: str | None = None, headers: Mapping[str, str] | None = None) -> web.Response:
    """Returns the problem response for an HTTP status. Code and title are the status's standard name."""
    known = HTTPStatus(status)
    detail = detail or known.description or known.phrase
    return problem_response(status, known.name.lower(), detail, headers=headers)


_PASSED_HEADERS = ("Allow", "Retry-After")
"""Headers of aiohttp's own error responses that a problem response keeps, because the client can act on them."""


def _from_aiohttp(error: web.HTTPException) -> web.Response:
    headers = {name: error.headers[name] for name in _PASSED_HEADERS if name in error.headers}
    # For a body that is too large, aiohttp's text states the sizes. Other texts of aiohttp only repeat the status.
    detail = error.text if isinstance(error, web.HTTPRequestEntityTooLarge) else None
    return status_response(error.status, detail, headers)


def _from_our_error(error: ExportWorkerError) -> web.Response:
    match error:
        case InvalidRequestError():
            status = 400 if any(item.field == WHOLE_BODY for item in error.problems) else 422
            return problem_response(status, error.code, str(error), errors=error.problems)
        case IdempotencyConflictError():
            return problem_response(422, error.code, str(error), errors=error.problems)
        case ExportNotFoundError():
            return problem_response(404, error.code, str(error))
        case StepError(retryable=True):
            return _unavailable(error, str(error), error.retry_after_s or RETRY_AFTER_S)
        case StepError():
            return problem_response(502, error.code, str(error))
        case _:
            return _internal(error)


def _internal(error: ExportWorkerError) -> web.Response:
    """Returns the response for an error behind the gateway. Its addresses and settings are only logged."""
    _log.error("request.failed", code=error.code, error=str(error))
    if isinstance(error, QueueUnreachableError):
        detail = f"the Redis of queue {error.queue} is unreachable or refuses calls; retry later"
        return _unavailable(error, detail, RETRY_AFTER_S)
    if isinstance(error, ServiceUnreachableError):
        return _unavailable(
            error, "a service that the gateway needs is unreachable or refuses calls; retry later", RETRY_AFTER_S
        )
    detail = "the configuration of the gateway is wrong for this request; its log has the reason"
    return problem_response(500, error.code, detail)


def _unavailable(error: ExportWorkerError, detail: str, wait_s: float) -> web.Response:
    return problem_response(503, error.code, detail, headers={"Retry-After": str(max(1, round(wait_s)))})
