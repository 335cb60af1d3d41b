"""Errors as RFC 9457 problems: ours, the platform's, and those of aiohttp itself."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import structlog
from aiohttp import web

from export_producers.gateway.schemas import PROBLEM_PREFIX, PROBLEM_TYPE, FieldError, Problem
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
"""On every answer. No Access-Control header among them: a browser keeps pages of other origins away."""
AGAIN_S = 5
"""When a service that we need may be back: it is no use to ask at once."""
WHOLE_BODY = "request"
"""The field that a problem is told for when the body is no JSON object at all."""

_log = structlog.get_logger(__name__)


class ProblemError(Exception):
    """What HTTP alone can do wrong.

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


def wrong_parameter(name: str, message: str) -> ProblemError:
    """A parameter or header is wrong."""
    problem = FieldProblem(name, message)
    return ProblemError(400, ErrorCode.INVALID_REQUEST, str(problem), errors=[problem])


def answer(error: Exception) -> web.Response:
    """The problem that an error is; one that nobody foresaw is logged and told without its words."""
    match error:
        case ProblemError():
            return problem(error.status, error.code, error.detail, errors=error.errors, headers=error.headers)
        case web.HTTPException():
            return _of_aiohttp(error)
        case ExportWorkerError():
            return _of_ours(error)
        case web.RequestPayloadError():
            return problem(400, "bad_request", "the body cannot be read as its headers announce it")
        case _:
            _log.error("request.crashed", exc_info=error)
            return problem(500, ErrorCode.INTERNAL_ERROR, "a defect of the gateway; its log tells more")


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """An answer that is a problem."""
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


def of_status(status: int, detail: str | None = None, headers: Mapping[str, str] | None = None) -> web.Response:
    """What HTTP calls a status, as a problem."""
    known = HTTPStatus(status)
    return problem(status, known.name.lower(), detail or known.description or known.phrase, headers=headers)


_KEPT = ("Allow", "Retry-After")
"""Headers of aiohttp's own answers that say more than the status."""


def _of_aiohttp(error: web.HTTPException) -> web.Response:
    headers = {name: error.headers[name] for name in _KEPT if name in error.headers}
    # What aiohttp says of a size has the numbers in it; its other words repeat the status.
    detail = error.text if isinstance(error, web.HTTPRequestEntityTooLarge) else None
    return of_status(error.status, detail, headers)


def _of_ours(error: ExportWorkerError) -> web.Response:
    match error:
        case InvalidRequestError():
            status = 400 if any(item.field == WHOLE_BODY for item in error.problems) else 422
            return problem(status, error.code, str(error), errors=error.problems)
        case IdempotencyConflictError():
            return problem(422, error.code, str(error))
        case ExportNotFoundError():
            return problem(404, error.code, str(error))
        case StepError(retryable=True):
            return _later(error, str(error), error.retry_after_s or AGAIN_S)
        case StepError():
            return problem(502, error.code, str(error))
        case _:
            return _inner(error)


def _inner(error: ExportWorkerError) -> web.Response:
    """What is wrong behind the gateway: where, and with which settings, is no business of the caller's."""
    _log.error("request.failed", code=error.code, error=str(error))
    if isinstance(error, ServiceUnreachableError):
        return _later(error, "a service that the gateway needs cannot be reached", AGAIN_S)
    return problem(500, error.code, "the gateway is not configured for this; its log tells more")


def _later(error: ExportWorkerError, detail: str, wait_s: float) -> web.Response:
    return problem(503, error.code, detail, headers={"Retry-After": str(max(1, round(wait_s)))})
