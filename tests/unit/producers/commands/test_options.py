"""Types of options: what is allowed is said in words, and a misspelt choice is answered with the one that was meant."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from export_producers.commands.options import SECONDS, Choice, WholeNumber
from export_worker.cli import cli


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (WholeNumber(1, 1000), "0", "must be a whole number from 1 to 1000, not 0"),
        (WholeNumber(1, 1000), "many", "must be a whole number from 1 to 1000, not many"),
        (WholeNumber(1, 1000), "1.5", "must be a whole number from 1 to 1000, not 1.5"),
        (WholeNumber(min=1), "-1", "must be a whole number of at least 1, not -1"),
        (SECONDS, "soon", "must be a number above 0, not soon"),
        (SECONDS, "0", "must be a number above 0, not 0"),
        (SECONDS, "inf", "must be a number above 0, not inf"),
        (Choice(["queued", "failed"]), "failled", "must be one of queued, failed, not failled; did you mean failed?"),
        (Choice(["queued", "failed"]), "done", "must be one of queued, failed, not done"),
    ],
)
def test_wrong_value_of_an_option_is_answered_in_words(kind: click.ParamType[Any], text: str, message: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(text, None, None)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["catalog", "gio", "segmets"], "Invalid value for 'RESOURCE': must be one of projects, tags, segments, "),
        (["catalog", "gio", "segmets"], "not segmets; did you mean segments?"),
        (["catalog", "gio"], "Missing argument 'RESOURCE'"),
        (["schema", "opnapi"], "Invalid value for 'DOCUMENT': must be one of request, status, event, config, "),
        (["schema", "opnapi"], "did you mean openapi?"),
        (["completion", "fsh"], "Invalid value for 'SHELL': must be one of bash, zsh, fish, not fsh; did you"),
    ],
)
def test_wrong_choice_of_an_argument_names_the_argument(arguments: list[str], message: str) -> None:
    output = CliRunner().invoke(cli, arguments).output
    assert message in output
    assert "{" not in output.partition("Error: ")[2]


def test_right_values_of_options_are_converted() -> None:
    assert (WholeNumber(1, 1000).convert("1000", None, None), SECONDS.convert("0.5", None, None)) == (1000, 0.5)
    assert Choice(["queued", "failed"]).convert("failed", None, None) == "failed"
