"""A TCP proxy on loopback: a slow link, or one that breaks."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """`cut_after_bytes` counts over each connection; None lets everything pass. The next `refuse`
    connections are closed once the server has said its first words, which is while keys are
    exchanged. `bytes_per_second` goes for what is sent to the server, over all connections."""

    port: int
    cut_after_bytes: int | None = None
    cuts: int = 0
    max_cuts: int = 1
    connections: int = 0
    sent: list[int] = field(default_factory=list)
    refuse: int = 0
    bytes_per_second: float | None = None
    link: threading.Lock = field(default_factory=threading.Lock)


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
                if made.refuse:
                    made.refuse -= 1
                    client.sendall(server.recv(1 << 16))
                    client.close()
                    server.close()
                    continue
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
        while block := source.recv(1 << 14 if made.bytes_per_second else 1 << 16):
            if counted and made.bytes_per_second is not None:
                with made.link:  # A link takes one at a time.
                    time.sleep(len(block) / made.bytes_per_second)
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
