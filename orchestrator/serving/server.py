"""Serve the page on the loopback interface to whoever has the token, and send what changes as server-sent events."""

from __future__ import annotations

import asyncio
import errno
import hmac
import json
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from orchestrator.errors import OrchestrateError
from orchestrator.exit_codes import of_system
from orchestrator.serving.state import Seen
from orchestrator.serving.watcher import Watcher

ROOM = Path(__file__).resolve().parent
LOOPBACK = "127.0.0.1"
# Beside Ray's dashboard, which has 8265.
PORT = 8270
# Another name in the Host header is that of a site whose DNS answer has become this address.
HOSTS = {"127.0.0.1", "localhost", "[::1]"}
# Seconds between two signs of life, and those after which a browser tries again.
HEARTBEAT, RETRY = 15.0, 2.0
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class ServingError(OrchestrateError):
    """The page cannot be served; the message says where, why, and what to do."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def serve(
    look: Callable[[], Seen],
    build: Callable[[int], str],
    *,
    port: int | None,
    every: float,
    ready: Callable[[str, int], None],
) -> None:
    """Serve until Ctrl-C; `ready` gets the address that opens the page, and its port.

    `look` and `build` are the watcher's. Without a `port` it is PORT, or a free one where that is taken; 0 is a free
    one. Raises ServingError where the port cannot be had.
    """
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(look, build, port, every, ready))


async def _serve(
    look: Callable[[], Seen],
    build: Callable[[int], str],
    port: int | None,
    every: float,
    ready: Callable[[str, int], None],
) -> None:
    watcher, token = Watcher(look, build, every), secrets.token_urlsafe(24)
    runner = web.AppRunner(application(watcher, token), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            chosen = await _listen(runner, PORT if port is None else port)
        except ServingError:
            if port is not None:
                raise
            chosen = await _listen(runner, 0)
        ready(f"http://{LOOPBACK}:{chosen}/?token={token}", chosen)
        await watcher.run()
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, port: int) -> int:
    """Listen on a port of the loopback interface; returns its number."""
    site = web.TCPSite(runner, LOOPBACK, port)
    try:
        await site.start()
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had: {error.strerror}"
        raise ServingError(
            f"port {port} {reason}; --port names another, and 0 takes a free one", of_system(error)
        ) from error
    (address,) = (each for each in runner.addresses if each)
    return int(address[1])


def application(watcher: Watcher, token: str) -> web.Application:
    """Return the web application: the page at /, its events at /events; everything else is refused."""

    async def page(request: web.Request) -> web.StreamResponse:
        text = await watcher.current_page()
        if text is None:
            raise web.HTTPServiceUnavailable(text=f"{watcher.problem}\n")
        response = web.Response(text=text, content_type="text/html")
        # A forwarded port may lead over a slow line.
        response.enable_compression()
        return response

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **HEADERS})
        await response.prepare(request)
        # A browser that slept may have missed states, and gets the newest, which is whole.
        version = request.headers.get("Last-Event-ID", "")
        with suppress(ConnectionError):
            await response.write(f"retry: {round(RETRY * 1000)}\n\nevent: alive\ndata:\n\n".encode())
            async with watcher.viewer():
                while True:
                    if await watcher.newer(version, HEARTBEAT):
                        version = watcher.version
                        event = f"id: {version}\nevent: state\ndata: {watcher.state}\n\n"
                    else:
                        event = "event: alive\ndata:\n\n"
                    await response.write(event.encode())
        return response

    app = web.Application(middlewares=[_guard(token)])
    app.router.add_get("/", page)
    app.router.add_get("/events", events, allow_head=False)
    return app


def _guard(token: str) -> Middleware:
    """Return the middleware that lets nobody through but the holder of the token, and nothing but reading."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await answer(request, handler)
        except web.HTTPException as error:
            response = error
        if not response.prepared:
            response.headers.update(HEADERS)
        if isinstance(response, web.HTTPException):
            raise response
        return response

    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if (host if host.endswith("]") else host.rpartition(":")[0] or host) not in HOSTS:
            raise web.HTTPForbidden(text="this page has no such name; open it at 127.0.0.1\n")
        if request.method not in ("GET", "HEAD"):
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"], text="this page only reads\n")
        # Cookies do not tell ports apart.
        cookie = "orchestrate-" + re.sub(r"\W+", "-", host)
        if given := request.query.get("token"):
            if request.path != "/" or not _same(given, token):
                raise _unknown()
            # The address bar, and what is copied from it, shall not hold the token.
            response = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": "/"})
            response.set_cookie(cookie, token, httponly=True, samesite="Lax")
            return response
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        bearer = credentials if scheme.lower() == "bearer" else ""
        if not (_same(request.cookies.get(cookie, ""), token) or _same(bearer, token)):
            raise _unknown()
        return await handler(request)

    return guard


def _unknown() -> web.HTTPForbidden:
    return web.HTTPForbidden(
        text="this page needs its token: open the address that `orchestrate watch --serve` printed\n"
    )


def _same(given: str, token: str) -> bool:
    """Compare in a time that does not depend on how much of it is right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


@cache
def live_script() -> str:
    """Return the script that makes the page live, with its style; it asks nobody but the page's server.

    It runs behind the page's own.
    """
    style = (ROOM / "live.css").read_text(encoding="utf-8")
    script = (ROOM / "live.js").read_text(encoding="utf-8")
    return f"const LIVE_STYLE = {json.dumps(style)};\n{script}"
