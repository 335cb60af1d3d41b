"""Amplitude, which the simulator plays."""

import base64

from export_worker.simulator.recipes.amplitude import API_KEY, COHORTS
from support.recipes.played import TOKEN, BoxCase
from support.recipes.simulated import SimulatedRecipe, file_of

COHORT, BROKEN = COHORTS


class SimulatedAmplitude(SimulatedRecipe):
    secrets = (base64.b64encode(f"{API_KEY}:{TOKEN}".encode()).decode(),)
    failing = BROKEN


CASE = BoxCase(
    api=SimulatedAmplitude,
    kind="cohort_users",
    fields={"cohort_id": COHORT, "properties": ["email", "city"]},
    files={f"{COHORT}.csv": file_of({"cohort": COHORT})},
    failing={"cohort_id": BROKEN},
    reason="JOB FAILED",
    refused={"cohort_id": "unknown"},
    refusal="no cohort unknown",
    settings={"api_key": API_KEY, "client_secret": TOKEN},
    catalog={"cohorts": COHORTS},
)
