"""Recipes for services that request exports without the configuration of export-worker."""

from pathlib import Path

from export_worker.recipes.finding import load_recipe
from export_worker.recipes.kinds import make_known


def use_recipe(file: str | Path) -> list[str]:
    """Makes the kinds of a recipe file known to this process. Recipes that come with export-worker always are.

    Returns:
        The kinds.

    Raises:
        ConfigError: The file cannot be read, or is no recipe. Each problem has its line and its field.
    """
    recipe = load_recipe(str(Path(file).absolute()))
    make_known(recipe)
    return [f"{recipe.name}.{kind}" for kind in recipe.kinds]
