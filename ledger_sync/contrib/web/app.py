"""The ASGI application: the operations, the sockets, the console's page, and the loop behind them.

It mounts under any prefix. Its loop begins with the first request, since a mounted application is told of no start, and
ends with ``aclose`` or with the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final

import socketio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from ledger_sync import LedgerSync
from ledger_sync.contrib.keys import number_of
from ledger_sync.contrib.queues import RunQueue
from ledger_sync.contrib.web.api import Api
from ledger_sync.contrib.web.auth import Authenticate, principal_of_header, refuse_without
from ledger_sync.contrib.web.books import Books
from ledger_sync.contrib.web.crew import Crew, QueueWorkers
from ledger_sync.contrib.web.live import Live
from ledger_sync.contrib.web.openapi import document
from ledger_sync.contrib.web.operations import Call, OfTenant, Operation, body_of, query_of
from ledger_sync.contrib.web.problems import ProblemError, answered, not_there, problem_of
from ledger_sync.contrib.web.tenants import Tenants
from ledger_sync.errors import ConfigurationError
from ledger_sync.logs import log
from ledger_sync.workbench import Health, Poster

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

STATIC: Final = Path(__file__).parent / "static"
"""Where the frontend is built; ``ui/README.md`` says how."""

API: Final = "/api/ledger"
SOCKETS: Final = "/socket.io"

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ledger sync</title>
<link rel="icon" href="icon.svg">
<script type="module" src="assets/ledger-sync-console.js"></script>
</head>
<body>
<ledger-sync-console></ledger-sync-console>
<noscript>The console needs JavaScript.</noscript>
</body>
</html>
"""

ICON: Final = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">
<rect width="16" height="16" rx="4" fill="#4f46e5"/>
<path d="M4 5.5h8M4 8h5M4 10.5h8" stroke="#fff" stroke-width="1.6" stroke-linecap="round"/></svg>
"""

NOT_BUILT: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Ledger sync</title></head>
<body>
<h1>The console has not been built</h1>
<p>This is a checkout. Build its frontend: <code>npm ci &amp;&amp; npm run build</code> in
<code>ledger_sync/contrib/web/ui</code>. The API works without it.</p>
</body>
</html>
"""


def create_app(
    sync: LedgerSync,
    factory: Any,
    authenticate: Authenticate,
    *,
    origins: Iterable[str] = (),
    manager: Any = None,
    runs_at_once: int = 2,
    adopting: bool = True,
    follow_seconds: float = 0.5,
    poster: Poster | None = None,
    health: Health | None = None,
    queue: RunQueue | None = None,
) -> WebApp:
    """An ASGI application around a ``LedgerSync``, to be mounted in a backend or served alone.

    :param factory: makes the host's sessions; or an ``async_sessionmaker``.
    :param authenticate: whose token it is; asked at every request and every connection.
    :param origins: pages of other origins (``https://erp.example.com``) that may use it; none unless given.
    :param manager: a python-socketio client manager; not needed for several processes.
    :param runs_at_once: how many runs this process works on at the most; 0 leaves them to other workers.
    :param adopting: whether runs that a console began and whose workers have died are gone on with here.
    :param follow_seconds: how often the tables of the runs are read while somebody watches.
    :param poster: posts the documents that no entry mentions, as of ``LedgerSync.backfill``; they are counted without.
    :param health: holds a run with its reason, as there.
    :param queue: whose workers work on the runs that are started here, as ``register`` of ``contrib.celery`` or
        ``contrib.procrastinate`` made it, with a poster and health of its own; none is worked on in this process then.
    :raises ConfigurationError: ``origins`` is one text.
    """
    if isinstance(origins, str):
        raise ConfigurationError(f"create_app(origins={origins!r}): give a tuple of origins, not a text.")
    books, tenants, origins = Books(sync, factory), Tenants(sync), tuple(origins)
    crew = Crew(books, at_once=runs_at_once if queue is None else 0, adopting=adopting, poster=poster, health=health)
    live = Live(books, tenants, authenticate, crew, origins=origins, manager=manager, seconds=follow_seconds)

    workers = crew if queue is None else QueueWorkers(queue)
    operations = Api(books, tenants, workers, live.follow).operations()
    return WebApp(operations, authenticate, crew, live, origins)


class WebApp:
    """What ``create_app`` makes. A backend that mounts it calls ``await app.aclose()`` when it shuts down."""

    def __init__(
        self,
        operations: Sequence[Operation],
        authenticate: Authenticate,
        crew: Crew,
        live: Live,
        origins: tuple[str, ...],
    ) -> None:
        self.operations = operations
        self.openapi = document(operations)
        self.authenticate = authenticate
        self.crew = crew
        self.live = live
        self._loop: asyncio.Task[None] | None = None
        self._sockets = socketio.ASGIApp(live.server, socketio_path=SOCKETS.strip("/"))
        cors = Middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["Authorization"]
        )
        self._http = Starlette(
            routes=self._routes(),
            middleware=[cors] if origins else [],
            exception_handlers={HTTPException: _http_problem},
        )

    def _routes(self) -> list[BaseRoute]:
        routes: list[BaseRoute] = [
            Route(f"{API}{operation.path}", self._endpoint(operation), methods=[operation.method])
            for operation in self.operations
        ]
        return [
            *routes,
            Route(f"{API}/openapi.json", self._document, methods=["GET"]),
            Mount("/assets", _Assets(directory=STATIC, check_dir=False)),
            Route("/icon.svg", _icon, methods=["GET"]),
            Route("/", _page, methods=["GET"]),
        ]

    async def _document(self, request: Request) -> Response:
        return JSONResponse(self.openapi)

    def _endpoint(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                principal = await principal_of_header(self.authenticate, request.headers.get("authorization"))
                refuse_without(operation.right, principal)
                asked: Any = query_of(operation.query, request)
                if operation.body is not None:
                    asked = _merged(await body_of(operation.body, request), asked)
                answer = await operation.handler(
                    Call(principal, asked, number_of(request.path_params.get("syncId", "")))
                )
            except ProblemError as problem:
                return answered(problem)
            except Exception as error:
                told = problem_of(error)
                if told is None:
                    log.exception("Ledger sync: %s %s failed", operation.method, operation.path)
                    told = ProblemError(500, "Failed", "Something went wrong here.", "The server's log says what.")
                return answered(told)
            content = answer.model_dump_json(by_alias=True)
            return Response(content, operation.status, {"Cache-Control": "no-store"}, "application/json")

        return endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if self._loop is None or self._loop.done():
            self._begin()
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        if path.startswith(f"{SOCKETS}/"):
            await self._sockets({**scope, "path": path, "root_path": ""}, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._http(scope, receive, _with_headers(send))

    def _begin(self) -> None:
        self.crew.begin()
        self._loop = asyncio.create_task(self.live.run(), name="ledger-sync follows runs")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._begin()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def aclose(self) -> None:
        """Stop following and working. A slice in a thread goes on to its end; the run does once its lease has passed,
        elsewhere or here after the next start.
        """
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        await self.crew.stop()
        self.live.books.close()


class _Assets(StaticFiles):
    """The built frontend: its entries are asked for anew each time, what is named by its content never."""

    def file_response(self, *arguments: Any, **more: Any) -> Response:
        response = super().file_response(*arguments, **more)
        by_content = "-shared-" in Path(str(arguments[0])).name
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if by_content else "no-cache"
        return response


def _merged(body: Any, query: OfTenant) -> Any:
    """The fields of a body, and the tenant, which either may name."""
    named = {one.tenant for one in (body, query) if getattr(one, "tenant", None) is not None}
    if len(named) > 1:
        raise ProblemError(422, "Refused", "Body and query name different tenants.", "Name one.")
    tenant = next(iter(named), None)
    return body.model_copy(update={"tenant": tenant}) if isinstance(body, OfTenant) else OfTenant(tenant=tenant)


async def _icon(request: Request) -> Response:
    return Response(ICON, media_type="image/svg+xml")


async def _page(request: Request) -> Response:
    if not (STATIC / "ledger-sync-console.js").exists():
        return HTMLResponse(NOT_BUILT, 503)
    return HTMLResponse(PAGE)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return answered(not_there())
    remedy = "api/ledger/openapi.json lists what there is."
    response = answered(ProblemError(error.status_code, error.detail, f"{error.detail}.", remedy))
    response.headers.update(error.headers or {})
    return response


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message.get("headers", ())}
            more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            headers = [*message.get("headers", ()), *(pair for pair in more if pair[0] not in given)]
            message = {**message, "headers": headers}
        await send(message)

    return sending
