"""APIs of recipes that the simulator plays."""

from aiohttp import web

from export_worker.simulator import WORLD, Fault, FileSpec, Scenario, SimulatorSettings, build_app
from export_worker.simulator.files import content
from support.recipes.played import TOKEN, PlayedRecipe

ROWS = 2
SCENARIO = Scenario(stage_s=0, rows=ROWS)


class SimulatedRecipe(PlayedRecipe):
    """The simulator, whose ids are the same in every run. It checks the credential, and its links do not expire.

    Args:
        failing: Exports of what has this text in its id fail.
    """

    failing: str

    def application(self) -> web.Application:
        app = build_app(SimulatorSettings(tokens=(TOKEN,), scenario=SCENARIO))
        app[WORLD].run_id = "job-"
        app[WORLD].faults.add(Fault(on="submit", fault="error_stage", match=self.failing, times=None))
        return app

    def unauthorized(self, _request: web.Request) -> web.Response | None:
        return None


def file_of(arguments: dict[str, object]) -> bytes:
    """Returns the file of a job that was started with these arguments."""
    return b"".join(content(FileSpec(f"{arguments}", ("id", "name", "city"), rows=ROWS)))
