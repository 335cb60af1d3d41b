"""How a visitor wants the pages: language, colours and clock. A link sets one, and a cookie keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from export_producers.choices import LANGUAGES, Language
from export_producers.language_choice import preferred

CHOICES: Mapping[str, tuple[str, ...]] = {
    "lang": LANGUAGES,
    "theme": ("auto", "light", "dark"),
    "clock": ("local", "utc"),
    "keys": ("on", "off"),
}
"""The values of each preference, the default first. The default language is the browser's."""
KEPT_S = 365 * 86_400
COOKIE = "ew-"
"""Precedes the name of a preference in the name of its cookie."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """The preferences of one visitor.

    Args:
        keys: Whether single keys act. Speech input and shaking hands can press them by accident (WCAG 2.1.4).
    """

    lang: Language
    theme: str
    clock: str
    keys: str


def preferences_of(request: web.Request) -> Preferences:
    """Returns the preferences of a request: from its query string, its cookies, or the defaults."""
    chosen = {name: _chosen(request, name) for name in CHOICES}
    return Preferences(
        lang=preferred(chosen["lang"], request.headers.get("Accept-Language")),
        theme=chosen["theme"] or CHOICES["theme"][0],
        clock=chosen["clock"] or CHOICES["clock"][0],
        keys=chosen["keys"] or CHOICES["keys"][0],
    )


def _chosen(request: web.Request, name: str) -> str | None:
    wishes = (request.query.get(name), request.cookies.get(COOKIE + name))
    return next((wish for wish in wishes if wish in CHOICES[name]), None)


def keep(request: web.Request, response: web.StreamResponse) -> None:
    """Sets the cookie of each preference that the query string of a request states."""
    for name, values in CHOICES.items():
        value = request.query.get(name)
        if value in values:
            response.set_cookie(
                COOKIE + name, value, max_age=KEPT_S, path="/console/", samesite="Strict", httponly=True
            )
