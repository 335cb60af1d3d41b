"""The conformance suite for the recipes of the box, against the simulator, which plays their APIs."""

from typing import Any, ClassVar

from export_worker.contract.request import ExportKind
from export_worker.platforms.conformance import DriverSuite
from export_worker.platforms.conformance.harness import TOKEN
from export_worker.recipes.fields import kind_models
from export_worker.recipes.finding import find_recipe
from export_worker.simulator.recipes.amplitude import API_KEY


def export_of(kind: str, **fields: Any) -> ExportKind:
    """Returns an export of a kind of the box."""
    recipe = find_recipe(kind.partition(".")[0])
    return kind_models(recipe)[kind].model_validate({"kind": kind, **fields})


class RecipeSuite(DriverSuite):
    """The suite for a recipe of the box."""

    platform = "recipe"


class TestAmplitude(RecipeSuite):
    export: ClassVar[ExportKind] = export_of("amplitude.cohort_users", cohort_id="jgx4kl8")
    unknown_export: ClassVar[ExportKind] = export_of("amplitude.cohort_users", cohort_id="unknown")
    settings: ClassVar = {"recipe": "amplitude", "api_key": API_KEY, "client_secret": TOKEN}


class TestAuth0(RecipeSuite):
    export: ClassVar[ExportKind] = export_of("auth0.users", connection_id="con_0000000000000001", user_fields=["email"])
    unknown_export: ClassVar[ExportKind] = export_of("auth0.users", connection_id="con_0000000000000002")
    settings: ClassVar = {"recipe": "auth0", "token": TOKEN}
