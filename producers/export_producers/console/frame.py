"""Renders pages: the templates, and what all pages have around their own content."""

from collections.abc import Mapping
from datetime import UTC, datetime
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
from export_producers.console.access import TOKEN_FIELD, VISITOR
from export_producers.console.preferences import CHOICES, keep, preferences_of
from export_producers.languages import text
from export_worker.contract.printable import clean

NAVIGATION = (
    ("overview", "/console/"),
    ("exports", "/console/exports"),
    ("failures", "/console/failures"),
    ("events", "/console/events"),
    ("triggers", "/console/triggers"),
    ("connections", "/console/connections"),
    ("activity", "/console/activity"),
    ("new", "/console/new"),
)
"""The pages of the left bar: the name in `nav` of the texts, and the path."""
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
    return {name: environment.get_template(name) for name in environment.list_templates()}


def page(request: web.Request, template: str, *, status: int = 200, **arguments: Any) -> web.Response:
    """Returns a page.

    Args:
        template: The name of the template, without `.html`.
        arguments: What the template shows. `title` is the key of its title, `titled` are the arguments of that text.
    """
    preferences = preferences_of(request)
    visitor = request.get(VISITOR)
    frame = {
        **spoken(preferences.lang),
        "preferences": preferences,
        "links": {name: _links(request, name) for name in CHOICES},
        "navigation": NAVIGATION,
        "path": request.path,
        "visitor": visitor,
        "token_field": TOKEN_FIELD,
        "now": datetime.now(UTC),
        "titled": {},
        "command": None,
        "json_url": None,
        "live_url": None,
    }
    body = templates()[f"{template}.html"].render(frame | arguments)
    response = web.Response(status=status, text=body, content_type="text/html")
    response.headers["Content-Language"] = preferences.lang
    response.headers["Vary"] = "Accept-Language, Cookie"
    response.enable_compression()
    keep(request, response)
    return response


def spoken(language: Language) -> dict[str, Any]:
    """Returns the functions with which templates say something in a language."""
    return {
        "t": partial(text, language),
        "say": partial(views.say, language),
        "span": partial(views.span, language),
        "ago": partial(views.ago, language),
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


def _links(request: web.Request, name: str) -> dict[str, str]:
    """Returns the address of the same page with each value of a preference."""
    query = [(each, value) for each, value in request.query.items() if each not in CHOICES]
    target = request.rel_url if request.method == "GET" else request.rel_url.with_path("/console/")
    return {value: str(target.with_query([*query, (name, value)])) for value in CHOICES[name]}
