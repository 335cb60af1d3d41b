"""The conformance suite for the recipes of the box, each against a played server made from its API's documentation."""

from typing import Any, ClassVar

from aiohttp import web

from export_worker.contract.request import ExportKind
from export_worker.platforms.conformance import DriverSuite
from export_worker.platforms.conformance.harness import TOKEN
from export_worker.recipes.fields import kind_models
from export_worker.recipes.finding import find_recipe
from support.played_amplitude import PlayedAmplitude
from support.played_api import PlayedApi
from support.played_auth0 import PlayedAuth0


def export_of(kind: str, **fields: Any) -> ExportKind:
    """Returns an export of a kind of the box."""
    recipe = find_recipe(kind.partition(".")[0])
    return kind_models(recipe)[kind].model_validate({"kind": kind, **fields})


class RecipeSuite(DriverSuite):
    """The suite for a recipe of the box."""

    platform = "recipe"
    played: ClassVar[type[PlayedApi]]

    def add_routes(self, app: web.Application) -> None:
        self.played(app)


class TestAmplitude(RecipeSuite):
    played = PlayedAmplitude
    export: ClassVar[ExportKind] = export_of("amplitude.cohort_users", cohort_id="jgx4kl8")
    unknown_export: ClassVar[ExportKind] = export_of("amplitude.cohort_users", cohort_id="unknown")
    settings: ClassVar = {"recipe": "amplitude", "api_key": "public-key", "client_secret": TOKEN}


class TestAuth0(RecipeSuite):
    played = PlayedAuth0
    export: ClassVar[ExportKind] = export_of("auth0.users", connection_id="con_0000000000000001", user_fields=["email"])
    unknown_export: ClassVar[ExportKind] = export_of("auth0.users", connection_id="con_0000000000000002")
    settings: ClassVar = {"recipe": "auth0", "token": TOKEN}
