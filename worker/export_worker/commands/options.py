"""Options that several commands share."""

import click

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

log_level = click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    default="INFO",
    show_default=True,
    help="The least severe level that is logged.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
