"""Renders pages: the templates, and what all pages have around their own content."""

from collections.abc import Mapping
from functools import cache, partial
from hashlib import sha256
from importlib.resources import files
from typing import Any

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from export_producers.choices import Language
from export_producers.commands.asked import subject
from export_producers.console import views
from export_producers.console.numbers import OVERVIEW, badges
from export_producers.console.request_form.descriptions import described
from export_producers.console.visitors.access import TOKEN_FIELD, VISITOR
from export_producers.console.visitors.preferences import CHOICES, keep, preferences_of
from export_producers.gateway.callers.access import SAFE_METHODS
from export_producers.gateway.calls import PAGES, name_of
from export_producers.gateway.context import CONTEXT
from export_producers.languages import text, texts
from export_producers.languages.messages import translated
from export_producers.reads.overview_document import Overview
from export_worker.contract.printable import clean

NAVIGATION = (
    ("overview", "/console/"),
    ("exports", "/console/exports"),
    ("batches", "/console/batches"),
    ("failures", "/console/failures"),
    ("events", "/console/events"),
    ("triggers", "/console/triggers"),
    ("schedules", "/console/schedules"),
    ("connections", "/console/connections"),
    ("workers", "/console/workers"),
    ("activity", "/console/activity"),
    ("new", "/console/new"),
    ("about", "/console/about"),
)
"""The pages of the left bar: the name in `nav` of the texts, and the path."""
LETTERS = {
    "overview": "o",
    "exports": "e",
    "batches": "b",
    "failures": "f",
    "events": "v",
    "triggers": "t",
    "schedules": "s",
    "connections": "c",
    "workers": "w",
    "activity": "a",
}
"""The key that opens a page, after `g`."""
KEYS = (
    ("?", "keys.help"),
    ("/", "keys.search"),
    ("j", "keys.down"),
    ("k", "keys.up"),
    ("Enter", "keys.open"),
    ("x", "keys.select"),
    ("r", "keys.retry"),
    ("c", "keys.cancel"),
    ("[", "keys.older"),
    ("]", "keys.newest"),
    (".", "keys.pause"),
    ("Esc", "keys.leave"),
    *((f"g {LETTERS[name]}", f"nav.{name}") for name, _ in NAVIGATION if name in LETTERS),
)
"""The keys of `console.js`, and the texts that say what they do."""
ASSETS = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}
"""The static files with their types. All of them are our own."""


def cleaned(value: object) -> object:
    """Makes what a template shows safe to read: names of platforms may have characters that turn text around."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def asset(name: str) -> bytes:
    """Returns the content of a static file."""
    return (files("export_producers.console") / "static" / name).read_bytes()


def asset_url(name: str) -> str:
    """Returns the address of a static file. It changes with the content, so a browser may keep the file."""
    return f"/console/static/{name}?v={sha256(asset(name)).hexdigest()[:12]}"


@cache
def templates() -> Mapping[str, Template]:
    """Loads all templates, so that no request reads a file."""
    environment = Environment(
        loader=PackageLoader("export_producers.console"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=cleaned,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"asset_url": asset_url, "iso": views.iso, "clock_text": views.clock_text}
    environment.globals["key_names"] = KEYS
    environment.globals |= {"human_bytes": views.human_bytes, "with_times": views.with_times}
    return {name: environment.get_template(name) for name in environment.list_templates()}


def page(request: web.Request, template: str, *, status: int = 200, **arguments: Any) -> web.Response:
    """Returns a page.

    Args:
        template: The name of the template, without `.html`.
        arguments: What the template shows. `title` is the key of its title, `titled` are the arguments of that text.
    """
    response = web.Response(status=status, text=html(request, template, **arguments), content_type="text/html")
    response.headers.update(document_headers(request))
    response.enable_compression()
    keep(request, response)
    return response


def document_headers(request: web.Request) -> dict[str, str]:
    """Returns the headers of every page."""
    return {"Content-Language": preferences_of(request).lang, "Vary": "Accept-Language, Cookie"}


def html(request: web.Request, template: str, **arguments: Any) -> str:
    """Returns the text of a page; see `page`."""
    preferences = preferences_of(request)
    visitor = request.get(VISITOR)
    overview = request.get(OVERVIEW)
    numbers = badges(overview, visitor.principal.connections if visitor else None)
    frame = {
        **spoken(preferences.lang),
        "preferences": preferences,
        "links": {name: _links(request, name) for name in CHOICES},
        "navigation": NAVIGATION,
        "badges": numbers,
        "missing_queues": overview.missing_queues if overview and visitor else [],
        "badge": next((numbers.get(name) for name, target in NAVIGATION if request.path == target), None),
        "path": request.path,
        "visitor": visitor,
        "token_field": TOKEN_FIELD,
        "now": request.app[CONTEXT].now,
        "titled": {},
        "done": _done(request, preferences.lang),
        "command": None,
        "json_url": None,
        "live_url": None,
        "tries_again": False,
    }
    return templates()[f"{template}.html"].render(frame | arguments)


def _done(request: web.Request, language: Language) -> str | None:
    """Returns the result of the visitor's form, which leads to `?done=NAME`; None for a name without a text."""
    return texts(language).get(f"done.{request.query.get('done')}")


def spoken(language: Language) -> dict[str, Any]:
    """Returns the functions with which templates say something in a language."""
    return {
        "t": partial(text, language),
        "say": partial(views.say, language),
        "span": partial(views.span, language),
        "ago": partial(views.ago, language),
        "described": partial(described, language),
        "translated": partial(translated, language),
        "subject": partial(subject, language=language),
    }


def rendered(language: Language, template: str, **arguments: Any) -> str:
    """Returns a template without the frame of a page."""
    return templates()[f"{template}.html"].render(**spoken(language), **arguments).strip()


def parts(language: Language, template: str, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Returns the parts of a page that change while it is open, by their ids: its blocks `live_ID`."""
    found = templates()[f"{template}.html"]
    context = found.new_context({**spoken(language), **arguments})
    blocks = {name: block for name, block in found.blocks.items() if name.startswith("live_")}
    return {
        name.removeprefix("live_").replace("part_", "part-"): "".join(block(context)).strip()
        for name, block in blocks.items()
    }


def badge_parts(language: Language, overview: Overview | None, allowed: frozenset[str] | None) -> dict[str, str]:
    """Returns the numbers of the left bar by their ids, for a page that stays open."""
    numbers = badges(overview, allowed)
    return {f"badge-{name}": rendered(language, "badge", name=name, number=number) for name, number in numbers.items()}


def _links(request: web.Request, name: str) -> dict[str, str]:
    """Returns the address of the same page with each value of a preference."""
    query = [(each, value) for each, value in request.query.items() if each not in CHOICES]
    target = request.rel_url if request.method in SAFE_METHODS else request.rel_url.with_path(_page_of_form(request))
    return {value: str(target.with_query([*query, (name, value)])) for value in CHOICES[name]}


def _page_of_form(request: web.Request) -> str:
    """Returns the path of the page that has the form of a request: the nearest one above the form's address."""
    resource = request.match_info.route.resource
    template = resource.canonical.split("/") if resource else []
    parts_of_path = request.path.split("/")
    for count in range(len(template), 2, -1):
        if name_of("GET", "/".join(template[:count])) in PAGES:
            return "/".join(parts_of_path[:count])
    return "/console/"
