"""Auth0, which the simulator plays."""

from export_worker.simulator.recipes.auth0 import CONNECTION
from support.recipes.played import BoxCase
from support.recipes.simulated import SimulatedRecipe, file_of


class SimulatedAuth0(SimulatedRecipe):
    failing = CONNECTION


CASE = BoxCase(
    api=SimulatedAuth0,
    kind="users",
    fields={"user_fields": ["email"]},
    files={"users.csv": file_of({"format": "csv", "fields": [{"name": "email"}]})},
    failing={"connection_id": CONNECTION},
    reason="failed",
    refused={"connection_id": "con_0000000000000002"},
    refusal="no such connection",
    catalog={"connections": [CONNECTION]},
)
