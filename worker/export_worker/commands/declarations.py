"""The commands of the worker side, as they are called: names, parameters and help. They need extras.

What a command does is imported when it runs. So help and completion are fast, and complete without the extras.
"""

import click

from export_producers.choices import DEAD_LETTERS_MAX, LIST_MAX, RESOURCES
from export_producers.commands import completion as completion_of
from export_producers.commands import options
from export_producers.commands.options import TEXT
from export_producers.commands.running import runs
from export_worker.commands.operation_names import operations

HERE = "export_worker.commands"
DOCUMENTS = ("request", "status", "event", "config", "openapi", "asyncapi", "reference")
SHELLS = ("bash", "zsh", "fish")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

log_level = click.option(
    "--log-level",
    type=options.Choice(LOG_LEVELS),
    default="INFO",
    show_default=True,
    help="The least severe level that is logged.",
)
only_sink = click.option(
    "--sink", type=TEXT, metavar="NAME", shell_complete=completion_of.sinks, help="Only this sink."
)

of_trigger = click.argument("trigger", type=TEXT, shell_complete=completion_of.triggers)
dead_letter = click.argument("entry", type=TEXT)


@runs(f"{HERE}.run:run", stays=True)
@click.option(
    "--role",
    type=options.Choice(["all", "control", "transfer"]),
    default="all",
    show_default=True,
    help="Which steps the worker runs.",
)
@click.option("--burst", is_flag=True, help="Stop when no export is open and every event is delivered.")
@log_level
def run() -> None:
    """Run a worker.

    The role `control` submits and polls exports. The role `transfer` moves files to S3. The role `all` does both.
    Workers of every role deliver completion events.
    """


@runs(f"{HERE}.catalog:catalog")
@options.connection
@options.word("resource", RESOURCES)
@click.option("--project", type=TEXT, metavar="ID", help="The platform's project, for a resource that belongs to one.")
@options.as_json
def catalog() -> None:
    """List the items of RESOURCE on CONNECTION's platform."""


@runs(f"{HERE}.call:call")
@options.connection
@click.argument("operation", type=TEXT, required=False, shell_complete=operations)
@click.option(
    "--param", "params", type=TEXT, metavar="K=V", multiple=True, help="A parameter; repeat the option for a list."
)
@click.option(
    "--body",
    "body",
    metavar="FILE|-|s3://BUCKET/KEY",
    help="JSON or CSV, as the operation requires; - reads standard input.",
)
@click.option("--charset", type=TEXT, metavar="NAME", help="The charset of a CSV body; it is sent as UTF-8.")
@click.option("--yes", is_flag=True, help="Delete, or send an empty body, without asking.")
@click.option("--list", "show", is_flag=True, help="List every operation of CONNECTION, and call none.")
@options.as_json
def call() -> None:
    """Call an operation of CONNECTION's platform. The answer is printed as JSON."""


event_limit = click.option(
    "--limit",
    type=options.WholeNumber(1, LIST_MAX),
    default=50,
    show_default=True,
    help="Maximum number of events.",
)


@click.group()
def events() -> None:
    """List the events that sinks have not taken, or deliver events again."""


@runs(f"{HERE}.events:pending", group=events)
@only_sink
@event_limit
@options.as_json
def pending() -> None:
    """List the events that a sink has not taken yet, with its last answer."""


@runs(f"{HERE}.events:deliver", group=events)
@click.argument("event_id", type=TEXT)
@options.as_json
def deliver() -> None:
    """Deliver the event EVENT_ID now, to every sink of its request. Running workers deliver it."""


@runs(f"{HERE}.events:test", group=events)
@click.argument("sink", type=TEXT, shell_complete=completion_of.sinks)
@options.as_json
def test() -> None:
    """Send a test event to SINK, and print what the sink answers. A running worker delivers it."""


@runs(f"{HERE}.events:replay", group=events)
@click.option(
    "--since",
    "moment",
    type=TEXT,
    callback=options.moment,
    required=True,
    metavar="WHEN",
    help="A time ago such as 6h, or a date and time.",
)
@only_sink
@click.option("--dry-run", is_flag=True, help="Only list the events.")
@options.as_json
def replay() -> None:
    """Deliver every event since WHEN again, with the same id. Running workers deliver them."""


@runs(f"{HERE}.events:undelivered", group=events)
@only_sink
@event_limit
@options.as_json
def undelivered() -> None:
    """List the events that workers have given up, the last one first. `events replay` delivers such events again."""


@click.group(name="dead-letters")
def dead_letters() -> None:
    """List the messages that a trigger could not use, try them again, or drop them."""


@runs(f"{HERE}.dead_letters:list_", name="list", group=dead_letters)
@of_trigger
@click.option(
    "--limit",
    type=options.WholeNumber(1, DEAD_LETTERS_MAX),
    default=20,
    show_default=True,
    help="Maximum number of dead letters.",
)
@options.as_json
def list_dead_letters() -> None:
    """List the dead letters of TRIGGER with the reasons, newest first. With --json, also the messages."""


@runs(f"{HERE}.dead_letters:again", group=dead_letters)
@of_trigger
@dead_letter
@options.as_json
def again() -> None:
    """Read the message ENTRY again with the present template of TRIGGER, and enqueue its export.

    The dead letter is removed when its export is enqueued. If the message still cannot be used, it is kept.
    """


@runs(f"{HERE}.dead_letters:drop", group=dead_letters)
@of_trigger
@dead_letter
def drop() -> None:
    """Remove the dead letter ENTRY of TRIGGER. The message is lost."""


@runs(f"{HERE}.doctor:doctor")
@options.language
@options.as_json
def doctor() -> None:
    """Check everything that a worker needs.

    Checks the configuration, Redis, S3, connections, sinks, triggers and workers with real calls.
    """


@runs(f"{HERE}.gateway:gateway", stays=True)
@log_level
def gateway() -> None:
    """Serve the HTTP API. Through it, services in any language can request exports."""


@runs(f"{HERE}.trigger:trigger", stays=True)
@click.argument("name", type=TEXT, shell_complete=completion_of.triggers)
@log_level
def trigger() -> None:
    """Enqueue the exports that messages request. [triggers.NAME] describes the source of the messages."""


@runs(f"{HERE}.simulate:simulate")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=options.WholeNumber(0, 65535), default=8099, show_default=True, help="The port; 0 picks a free port."
)
def simulate() -> None:
    """Simulate the platforms until Ctrl-C. Their jobs take time, and faults can be requested."""


@runs("export_worker.demo.command:demo")
@click.option(
    "--exports",
    "count",
    type=options.WholeNumber(1, 10_000),
    metavar="N",
    help="Number of exports in the first round; at least one of each kind.",
)
@click.option("--serve", is_flag=True, help="Keep everything running until Ctrl-C, and print commands to try.")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON on stdout.")
def demo() -> None:
    """Run built-in kinds and two recipes with an embedded Redis, an embedded S3 server and simulated platforms.

    There are two rounds. In the second round, the platforms fail some calls, and the workers retry.

    With --serve, the services listen on the ports of the documents' examples (6379, 9000, 8099, and 8080 for the HTTP
    API), if they are free.
    """


@runs(f"{HERE}.schema:schema")
@options.word("document", DOCUMENTS)
def schema() -> None:
    """Print the JSON Schema of a document, the OpenAPI or AsyncAPI document, or the reference of all settings."""


@click.group()
def recipe() -> None:
    """List the recipes that come with export-worker, or check a recipe. See PLATFORMS.md."""


@runs(f"{HERE}.recipe:list_", name="list", group=recipe)
@options.as_json
def list_recipes() -> None:
    """List the recipes that come with export-worker, with their kinds and fields."""


@runs(f"{HERE}.recipe:check", group=recipe)
@click.argument("recipe", type=TEXT, metavar="NAME|FILE", shell_complete=completion_of.recipes)
@options.as_json
def check() -> None:
    """Run the conformance suite of drivers on a recipe, against a server that plays its API.

    NAME|FILE is a recipe that comes with export-worker, or the path of a file that ends with .toml. No request leaves
    this machine. The exit status is 1 if a check failed, and 2 if the recipe is wrong.
    """


@runs(f"{HERE}.completion:completion")
@options.word("shell", SHELLS)
def completion() -> None:
    """Print the script with which SHELL completes commands, options and names.

    \b
    bash, in ~/.bashrc:  eval "$(export-worker completion bash)"
    zsh, in ~/.zshrc:    eval "$(export-worker completion zsh)"
    fish:  export-worker completion fish > ~/.config/fish/completions/export-worker.fish
    """  # noqa: D301 - click keeps the lines after the control character


COMMANDS = (
    run,
    catalog,
    call,
    events,
    dead_letters,
    doctor,
    gateway,
    trigger,
    recipe,
    simulate,
    demo,
    schema,
    completion,
)
