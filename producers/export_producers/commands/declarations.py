"""The commands of the producer side, as they are called: names, parameters and help. They need no extra."""

import click

from export_producers.choices import LIST_MAX, OPEN, STATES
from export_producers.commands import completion, options
from export_producers.commands.options import RATE, SECONDS, TEXT
from export_producers.commands.running import runs
from export_worker.contract.phase import Phase

EXPORTS = "export_producers.commands.exports"
LISTING = "export_producers.commands.listing"
OVERVIEW = "export_producers.commands.overview"
ACTIONS = "export_producers.commands.actions"
ACTIVITY = "export_producers.commands.activity"
BATCHES = "export_producers.commands.batches"
CONNECTIONS = "export_producers.commands.connections"
SCHEDULES = "export_producers.commands.schedules"


@runs(f"{EXPORTS}:enqueue")
@click.argument("file", type=click.Path(allow_dash=True))
@click.option(
    "--idempotency-key", type=TEXT, metavar="K", help="The same key with the same request returns the first export."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check the request, look up what it names on the platform, and enqueue nothing.",
)
@click.option(
    "--batch", type=TEXT, metavar="NAME", help="FILE is a JSON array of requests: enqueue them as the batch NAME."
)
@click.option("--wait", is_flag=True, help="Show progress until the export or the batch ends.")
@click.option("--timeout", "timeout_s", type=SECONDS, metavar="S", help="With --wait: stop waiting after S seconds.")
@options.language
@options.as_json
def enqueue() -> None:
    """Request the export that FILE describes as JSON. If FILE is -, the request is read from standard input.

    If the environment variables TRACEPARENT and TRACESTATE are set, the export belongs to that trace.
    """


@runs(f"{EXPORTS}:status")
@options.export_id
@click.option("--timeline", is_flag=True, help="Also show every transition.")
@click.option("--deliveries", is_flag=True, help="Also show every completion event with every sink.")
@options.language
@options.as_json
def status() -> None:
    """Show the status of the export EXPORT_ID."""


@runs(f"{LISTING}:list_", name="list")
@click.option(
    "--phase",
    type=options.Choice([OPEN, *(phase.value for phase in Phase)]),
    help="Only exports in this phase, or open ones.",
)
@click.option(
    "--state",
    type=options.Choice(STATES),
    help="Only open exports that wait for a slot, or that run for longer than 95 % of the last ones of their kind did.",
)
@options.filters
@options.more_filters
@click.option(
    "--limit",
    type=options.WholeNumber(1, LIST_MAX),
    default=50,
    show_default=True,
    help="Maximum number of exports.",
)
@options.language
@options.as_json
def list_() -> None:
    """List exports, newest first. The exports in phase failed are the dead letters."""


@runs(f"{LISTING}:failures")
@options.filters
@options.language
@options.as_json
def failures() -> None:
    """Show why exports have failed: the failed exports in groups by cause, the largest first.

    Without --since, these are the exports that were accepted in the last 24 hours. At most 5,000 are read.
    """


@runs(f"{OVERVIEW}:overview")
@options.language
@options.as_json
def overview() -> None:
    """Show the state of everything: exports, connections, queue, workers, sinks, triggers and Redis."""


@runs(f"{EXPORTS}:watch")
@options.export_id
@options.language
@options.as_json
def watch() -> None:
    """Follow the export EXPORT_ID until it ends."""


@runs(f"{ACTIONS}:cancel")
@options.export_id
@options.as_json
def cancel() -> None:
    """Cancel the export EXPORT_ID, and its operation on the platform if the platform can cancel it."""


@runs(f"{ACTIONS}:retry")
@options.optional_export_id
@click.option(
    "--from",
    "start",
    type=options.Choice(["submit", "poll", "transfer"]),
    help="The step to restart from. [default: the step that failed]",
)
@click.option("--failed", is_flag=True, help="Retry every failed export that a retry can help.")
@options.filters
@options.more_filters
@click.option("--limit", type=options.WholeNumber(min=1), metavar="N", help="Retry N exports at most, the newest ones.")
@click.option("--per-second", type=RATE, metavar="N", help="Retry N exports in each second at most.")
@click.option("--dry-run", is_flag=True, help="Only list the exports.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
def retry() -> None:
    """Restart the export EXPORT_ID, or with --failed all failed exports.

    All other options than --from require --failed. In a terminal, the command asks first. It leaves out exports whose
    error a retry cannot fix. To retry them, too, fix the cause and name the code with --error.
    """


@runs(f"{ACTIONS}:explain")
@options.export_id
@options.language
@options.as_json
def explain() -> None:
    """Explain why the export EXPORT_ID waits and until when, or how it ended."""


@runs(f"{ACTIVITY}:activity")
@click.option("--who", type=TEXT, metavar="NAME", help="Only acts of this key or user.")
@click.option("--action", type=TEXT, metavar="NAME", help="Only acts of this kind, such as `cancel`.")
@click.option(
    "--export-id", type=TEXT, metavar="ID", shell_complete=completion.export_ids, help="Only acts on this export."
)
@click.option(
    "--connection",
    type=TEXT,
    metavar="NAME",
    shell_complete=completion.connections,
    help="Only acts on this connection.",
)
@click.option("--outcome", type=TEXT, metavar="NAME", help="Only acts with this outcome, such as `done`.")
@click.option(
    "--since",
    type=TEXT,
    callback=options.moment,
    metavar="WHEN",
    help="Only acts since a time ago such as 6h, or since a date and time.",
)
@click.option(
    "--until",
    type=TEXT,
    callback=options.moment,
    metavar="WHEN",
    help="Only acts before a time ago such as 6h, or before a date and time.",
)
@click.option(
    "--limit", type=options.WholeNumber(1, LIST_MAX), default=50, show_default=True, help="Maximum number of acts."
)
@options.as_json
def activity() -> None:
    """Show who has changed what through the HTTP API and the console, newest first.

    Acts are kept for 90 days, and at most 100,000 of them. Acts on the command line are not recorded.
    """


@click.group()
def connections() -> None:
    """List connections, pause them, or resume them."""


@runs(f"{CONNECTIONS}:list_", name="list", group=connections)
@options.as_json
def list_connections() -> None:
    """List the connections, with their pauses by an operator."""


@runs(f"{CONNECTIONS}:pause", group=connections)
@options.connection
@click.option(
    "--until",
    type=TEXT,
    callback=options.future_moment,
    metavar="WHEN",
    help="When the pause ends: a time from now such as 30m, or a date and time. [default: with `resume`]",
)
@click.option("--reason", type=TEXT, metavar="TEXT", help="One line for other operators.")
@options.as_json
def pause() -> None:
    """Pause CONNECTION: none of its exports is submitted. Polls and transfers continue."""


@runs(f"{CONNECTIONS}:resume", group=connections)
@options.connection
@options.as_json
def resume() -> None:
    """End the pause of CONNECTION. Workers submit its exports at once."""


@click.group()
def batch() -> None:
    """Follow and cancel batches: many exports that were enqueued as one."""


@runs(f"{BATCHES}:list_", name="list", group=batch)
@options.language
@options.as_json
def list_batches() -> None:
    """List the newest 100 batches, newest first."""


@runs(f"{BATCHES}:status", name="status", group=batch)
@click.argument("batch", metavar="NAME", type=TEXT)
@options.language
@options.as_json
def batch_status() -> None:
    """Show how far the batch NAME is."""


@runs(f"{BATCHES}:cancel", name="cancel", group=batch)
@click.argument("batch", metavar="NAME", type=TEXT)
@options.language
@options.as_json
def cancel_batch() -> None:
    """Cancel every open export of the batch NAME. The batch accepts no further exports."""


@click.group()
def schedules() -> None:
    """List schedules, pause them, resume them, or run them now."""


@runs(f"{SCHEDULES}:list_", name="list", group=schedules)
@options.as_json
def list_schedules() -> None:
    """List the schedules of the workers, with the last and the next time of each."""


@runs(f"{SCHEDULES}:pause", name="pause", group=schedules)
@options.schedule
@click.option("--reason", type=TEXT, metavar="TEXT", help="One line for other operators.")
@options.as_json
def pause_schedule() -> None:
    """Pause SCHEDULE: its times pass without exports until it is resumed."""


@runs(f"{SCHEDULES}:resume", name="resume", group=schedules)
@options.schedule
@options.as_json
def resume_schedule() -> None:
    """End the pause of SCHEDULE. The times of the pause are not caught up."""


@runs(f"{SCHEDULES}:run_", name="run", group=schedules)
@options.schedule
@click.option(
    "--time",
    "time",
    type=TEXT,
    callback=options.moment,
    metavar="WHEN",
    help="The time whose dates the request has: a time ago such as 24h, or a date and time. [default: now]",
)
@options.as_json
def run_schedule() -> None:
    """Request the export of SCHEDULE now, and print its id."""


COMMANDS = (
    *(enqueue, status, list_, failures, overview, watch, cancel, retry, explain, activity, connections, batch),
    schedules,
)
