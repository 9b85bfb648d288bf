"""What the page of runs asks for."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from phenaki.errors import UserError
from phenaki.studio import answers


async def _names(request: Request) -> JSONResponse:
    return JSONResponse(await run_in_threadpool(answers.rooms_of(request).runs.names))


async def _compared(request: Request) -> JSONResponse:
    names, text = request.query_params.getlist("run"), request.query_params.get("filter", "")
    runs = answers.rooms_of(request).runs
    return JSONResponse(await run_in_threadpool(runs.compared, names, text))


async def _sample(request: Request) -> Response:
    runs, given = answers.rooms_of(request).runs, request.path_params
    try:
        path = await run_in_threadpool(runs.sample, given["name"], given["file"])
    except UserError as error:
        raise answers.Refused(404, str(error)) from None
    return answers.served(path, "image/png")


ROUTES = [
    Route("/api/runs", _names),
    Route("/api/runs/compared", _compared),
    Route("/runs/{name:path}/{file}", _sample),
]
