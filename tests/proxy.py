"""A TCP proxy on loopback that breaks a connection after so many bytes to the server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """`cut_after_bytes` counts over each connection; None lets everything pass."""

    port: int
    cut_after_bytes: int | None = None
    cuts: int = 0
    max_cuts: int = 1
    connections: int = 0
    sent: list[int] = field(default_factory=list)


@contextmanager
def proxy(target: int, cut_after_bytes: int | None = None, max_cuts: int = 1) -> Iterator[Proxy]:
    """In front of 127.0.0.1:`target`."""
    listener = socket.create_server(("127.0.0.1", 0))
    made = Proxy(listener.getsockname()[1], cut_after_bytes, 0, max_cuts)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", target))
                made.connections += 1
                for source, sink, counted in ((client, server, True), (server, client, False)):
                    threading.Thread(
                        target=_pass, args=(made, source, sink, counted), daemon=True
                    ).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _pass(made: Proxy, source: socket.socket, sink: socket.socket, counted: bool) -> None:
    total = 0
    with suppress(OSError):
        while block := source.recv(1 << 16):
            total += len(block)
            limit = made.cut_after_bytes
            if counted and limit is not None and total > limit and made.cuts < made.max_cuts:
                made.cuts += 1
                break
            sink.sendall(block)
    if counted:
        made.sent.append(total)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
