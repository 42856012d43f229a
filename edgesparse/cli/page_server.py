"""A run's page while it goes on, served on this machine only (`--serve`)."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click

from edgesparse.cli.options import say
from edgesparse.graph import events
from edgesparse.report.page.live import LiveRun
from edgesparse.spec.errors import EdgesparseError

LOOPBACK = "127.0.0.1"
LAST_LOOK_SECONDS = 7.0
"""How long the results wait for a browser that has asked for the page lately: longer than the five
seconds after which a page without scripts reloads itself."""
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _Server(ThreadingHTTPServer):
    """Serves one page, read-only, under a path that cannot be guessed."""

    daemon_threads = True

    def __init__(self, port: int, run: LiveRun) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.run = run
        self.path = f"/{secrets.token_urlsafe(16)}/"
        # Other names that resolve to this machine belong to somebody else (DNS rebinding).
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}
        self.asked_at = float("-inf")
        self.final: bytes | None = None
        self.final_sent = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a browser that closes its connection."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "edgesparse", ""
    timeout = 10

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0].encode()
        if self.headers.get("Host", "") not in self.server.hosts:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        elif not secrets.compare_digest(path, self.server.path.encode()):
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send(with_body=with_body)

    def _send(self, *, with_body: bool) -> None:
        self.server.asked_at = time.monotonic()
        final = self.server.final
        body = self.server.run.html().encode() if final is None else final
        self.send_response(HTTPStatus.OK)
        for name, value in {**_HEADERS, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)
            # The page's script asks for rows, and then goes to the run's page.
            if final is not None and self.path.partition("?")[2] != "rows":
                self.server.final_sent.set()

    def log_message(self, *_: Any) -> None:
        """Requests are not logged: stderr shows the run."""


class LivePage:
    """A served page: a listener of the run's events, which ends with the run's page."""

    def __init__(self, server: _Server) -> None:
        self._server = server

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._server.server_port}{self._server.path}"

    def __call__(self, event: events.RunEvent) -> None:
        self._server.run.listen(event)

    def finish(self, page: Path | None) -> None:
        """Show a run's page, and wait until a browser that follows the run has it, or Ctrl-C: the
        run has ended."""
        if page is None:
            return
        self._server.final = page.read_bytes()
        if time.monotonic() - self._server.asked_at < LAST_LOOK_SECONDS:
            with suppress(KeyboardInterrupt):
                self._server.final_sent.wait(LAST_LOOK_SECONDS)


@contextmanager
def live_page(title: str, *, serve: bool, port: int | None) -> Iterator[LivePage | None]:
    """Serve the page of a run within the block; None without `serve`.

    Args:
        port: default: a free one.

    Raises:
        EdgesparseError: the port is taken.
    """
    if not serve:
        if port is not None:
            raise click.UsageError("--port needs --serve")
        yield None
        return
    try:
        server = _Server(port or 0, LiveRun(title))
    except OSError as error:
        where, advice = (f"port {port}", "; choose another --port") if port else (LOOPBACK, "")
        raise EdgesparseError(
            f"cannot serve the page on {where}: {error.strerror}{advice}"
        ) from None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    page = LivePage(server)
    say(f"live page: {page.url}", err=True)
    if "SSH_CONNECTION" in os.environ:
        tunnel = f"{server.server_port}:{LOOPBACK}:{server.server_port}"
        say(f"from another machine: ssh -L {tunnel} THIS-MACHINE", err=True)
    try:
        yield page
    finally:
        server.shutdown()
        server.server_close()
