"""Builds the simulator's web application: state, platforms and control API."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from export_worker.simulator import control
from export_worker.simulator.growingio import routes as growingio
from export_worker.simulator.growingio_rest import routes as growingio_rest
from export_worker.simulator.recipes.amplitude import AmplitudeApi
from export_worker.simulator.recipes.auth0 import Auth0Api
from export_worker.simulator.sensorsdata import routes as sensorsdata
from export_worker.simulator.thinkingdata import routes as thinkingdata
from export_worker.simulator.world import RECORD, WORLD, RequestRecord, SimulatorSettings, World

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(settings: SimulatorSettings | None = None) -> web.Application:
    """Returns the simulator's application. Its state is at `app[WORLD]`."""
    app = web.Application(middlewares=[_record_request, control.refuse_invalid_requests])
    app[WORLD] = World(settings or SimulatorSettings())
    control.register(app)
    growingio.register(app)
    growingio_rest.register(app)
    thinkingdata.register(app)
    sensorsdata.register(app)
    for api in (AmplitudeApi, Auth0Api):
        api(app)
    return app


@web.middleware
async def _record_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Records each request to a platform before it is handled, so that a request that never ends is recorded too."""
    if request.path.startswith(control.PREFIX):
        return await handler(request)
    world = request.app[WORLD]
    authorization = request.headers.get("Authorization")
    record = RequestRecord(
        method=request.method,
        target=request.raw_path,
        headers=list(request.headers),
        authorized=None if authorization is None else world.tokens.accepts(authorization, world.clock()),
        at_s=world.clock(),
    )
    world.record(record)
    request[RECORD] = record
    try:
        response = await handler(request)
    except web.HTTPException as error:
        record.status = error.status
        raise
    record.status = response.status
    return response
