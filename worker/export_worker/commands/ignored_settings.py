"""Warns of variables that look like settings and are ignored, when a worker, a gateway or a trigger starts."""

import os

import structlog

from export_worker.config import ignored_variables, similar_variable

_log = structlog.get_logger(__name__)


def log_ignored_variables() -> None:
    """Logs each ignored variable whose name is similar to one of a setting: `EXPORT_S3_BUCKET`."""
    for name in ignored_variables(os.environ):
        if meant := similar_variable(name):
            _log.warning("setting.ignored", variable=name, advice=meant)
