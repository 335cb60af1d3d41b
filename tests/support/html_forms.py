"""Reads pages as a browser without scripts does: what a form would send, and which elements a page has."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Element:
    """An element of a page.

    Args:
        text: The text in it, with that of the elements in it.
    """

    tag: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class HtmlPage(HTMLParser):
    """The elements of a page, and the values of its fields as the page sets them."""

    elements: list[Element] = field(default_factory=list)
    _open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    @classmethod
    def of(cls, source: str) -> "HtmlPage":
        """Reads a page."""
        page = cls()
        page.feed(source)
        page.close()
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Adds an element."""
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in {"input", "meta", "link", "br"}:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        """Ends the last open element of a type."""
        at = next((at for at in reversed(range(len(self._open))) if self._open[at].tag == tag), None)
        del self._open[len(self._open) if at is None else at :]

    def handle_data(self, data: str) -> None:
        """Adds a text to the elements that it is in."""
        for element in self._open:
            element.text += data

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Returns the elements of a type with these attributes, of which `_` ends the names that Python reserves."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [each for each in self.elements if each.tag == tag and wanted.items() <= each.attributes.items()]

    def with_id(self, element_id: str) -> Element:
        """Returns the only element with an id."""
        (found,) = [each for each in self.elements if each.attributes.get("id") == element_id]
        return found

    def sent(self, **changes: str) -> dict[str, str]:
        """Returns what the form with the id or class `new` would send, without its buttons.

        Args:
            changes: Texts that a visitor has entered, by the id of a field.
        """
        found: dict[str, str] = {}
        select = ""
        for each in self.elements:
            name, entered = each.attributes.get("name", ""), changes.get(each.attributes.get("id", ""))
            if each.tag == "select":
                select = name
                found[name] = entered or ""
            elif each.tag == "option" and "selected" in each.attributes and not found.get(select):
                found[select] = each.attributes.get("value", each.text.strip())
            elif each.tag == "textarea":
                found[name] = each.text.removesuffix("\n") if entered is None else entered
            elif each.tag == "input" and name and name != "q":
                found[name] = each.attributes.get("value", "") if entered is None else entered
        return {name: text.replace("\n", "\r\n") for name, text in found.items()}
