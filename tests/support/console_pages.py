"""Reads the pages of the console as a browser does: texts, links, and the fields of forms."""

import re
from html import unescape

from support.gateway_site import Response


def text(response: Response) -> str:
    """Returns the HTML of a page."""
    return response.body.decode()


def links(response: Response, beginning: str) -> list[str]:
    """Returns the addresses of the links that begin with a text."""
    return [unescape(each) for each in re.findall(r'href="([^"]+)"', text(response)) if each.startswith(beginning)]


def fields_of(response: Response, action: str) -> list[tuple[str, str]]:
    """Returns the fields of the only form with this action, with the values that the page has."""
    (form,) = re.findall(rf'<form [^>]*action="{re.escape(action)}".*?</form>', text(response), re.DOTALL)
    fields = [dict(re.findall(r'([a-z_]+)="([^"]*)"', each)) for each in re.findall(r"<input [^>]+>", form)]
    return [(unescape(each["name"]), unescape(each.get("value", ""))) for each in fields if "name" in each]
