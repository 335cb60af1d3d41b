"""`export-worker doctor`: checks everything that a worker needs, and gives advice for each problem.

Exit status: 0 no error (there may be warnings) · 2 a setting is wrong · 4 a service cannot be reached.
"""

import os
from collections.abc import Mapping
from contextlib import aclosing

import click

from export_producers.choices import Language
from export_producers.commands import interrupts
from export_producers.languages.messages import translated
from export_worker.contract.printable import clean, dumps
from export_worker.doctor.finding import Finding, Level
from export_worker.doctor.report import examine

MAY_LEAVE_OBJECTS = "The check of S3 may leave objects below export-worker-doctor/."

LABELS: Mapping[Language, Mapping[Level, str]] = {
    "en": {"ok": "ok     ", "warning": "warning", "error": "ERROR  "},
    "zh": {"ok": "正常", "warning": "警告", "error": "错误"},
}


def doctor(*, language: Language, as_json: bool) -> None:
    """See `declarations.doctor`."""
    findings = interrupts.run(_report(language, as_json=as_json), lambda: MAY_LEAVE_OBJECTS)
    status = max((finding.status for finding in findings), default=0)
    if as_json:
        click.echo(dumps({"ok": status == 0, "findings": [finding.document() for finding in findings]}))
    raise click.exceptions.Exit(status)


async def _report(language: Language, *, as_json: bool) -> list[Finding]:
    """Returns every finding; prints each as a line when it is found, unless JSON is printed at the end."""
    findings = []
    async with aclosing(examine(os.environ)) as examined:
        async for finding in examined:
            findings.append(finding)
            if not as_json:
                click.echo(clean(_line(finding, language)))
    return findings


def _line(finding: Finding, language: Language) -> str:
    about, says, fix = (translated(language, each) for each in (finding.about, finding.says, finding.fix))
    return f"{LABELS[language][finding.level]} {about}: {says}{f' -> {fix}' if fix else ''}"
