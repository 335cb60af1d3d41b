"""`export-worker recipe`: lists the recipes that come with export-worker, and checks a recipe.

Exit status of `check`: 0 all checks passed · 1 a check failed · 2 the recipe is wrong, or the check needs samples.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import click

from export_worker.contract.printable import clean, dumps
from export_worker.errors import ConfigError
from export_worker.recipes.finding import find_recipe, load_recipe, located
from export_worker.recipes.kinds import make_known
from export_worker.recipes.model import Recipe
from export_worker.recipes.names import box_names, is_file

LABELS = {"passed": "ok     ", "skipped": "skipped", "failed": "FAILED "}


def list_(*, as_json: bool) -> None:
    """See `declarations.list_recipes`."""
    recipes = [find_recipe(name) for name in box_names()]
    if as_json:
        click.echo(dumps([_document(recipe) for recipe in recipes]))
        return
    for recipe in recipes:
        click.echo(clean(f"{recipe.name}: {recipe.title} {recipe.documentation}"))
        for name, kind in recipe.kinds.items():
            fields = ", ".join(field + ("" if spec.is_required else "?") for field, spec in kind.fields.items())
            click.echo(clean(f"  {recipe.name}.{name}: {kind.title}{f' Fields: {fields}' if fields else ''}"))


def _document(recipe: Recipe) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "title": recipe.title,
        "documentation": recipe.documentation,
        "base_url": recipe.base_url,
        "kinds": [
            {
                "kind": f"{recipe.name}.{name}",
                "title": kind.title,
                "fields": [
                    {"name": field, "type": spec.type, "required": spec.is_required, "description": spec.description}
                    for field, spec in kind.fields.items()
                ],
            }
            for name, kind in recipe.kinds.items()
        ],
        "options": list(recipe.options),
        "resources": list(recipe.catalog),
    }


def check(recipe: str, *, as_json: bool) -> None:
    """See `declarations.check_recipe`."""
    from export_worker.platforms.recipe_check.running import check_recipe, failed  # noqa: PLC0415 - imports pytest

    read = load_recipe(recipe)
    if is_file(recipe):
        make_known(read)
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]  # the user's settings of pytest
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        checks = check_recipe(read)
    except ConfigError as error:
        raise located(error, recipe) if is_file(recipe) else error from None
    wrong = failed(checks)
    if as_json:
        documents = [{"kind": c.kind, "check": c.name, "outcome": c.outcome, "message": c.message} for c in checks]
        click.echo(dumps({"recipe": read.name, "ok": not wrong, "checks": documents}))
    else:
        for line in _lines(checks):
            click.echo(clean(line))
        click.echo(f"{len(checks)} checks of {read.name}: {len(wrong)} failed")
    raise click.exceptions.Exit(1 if wrong else 0)


def _lines(checks: Sequence[Any]) -> Iterator[str]:
    """Yields a line for each check. Checks that failed for one reason are one line, because they have one cause."""
    same = Counter(check.message for check in checks if check.outcome == "failed")
    for check in checks:
        if check.outcome != "failed":
            yield f"{LABELS[check.outcome]} {check.kind} {check.name}{f': {check.message}' if check.message else ''}"
        elif count := same.pop(check.message, 0):
            more = f" (and {count - 1} more for this reason)" if count > 1 else ""
            yield f"{LABELS['failed']} {check.kind} {check.name}: {check.message}{more}"
