"""Worker processes that are forked from a process that has imported TensorFlow already.

Pipelines with code of their own need a new process each. Importing TensorFlow takes three
CPU-seconds, which only the first of a test process has to spend.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from functools import cache
from pathlib import Path
from typing import IO, Any

from edgesparse.graph.execution import worker_main
from edgesparse.graph.execution.worker import Worker
from edgesparse.spec.safe.isolated_python import import_path, python

_SERVE = "from tests.tools.forked_worker import serve; serve(int(sys.argv[1]))"
ROOT = Path(__file__).parents[2]
_LONGEST = 1 << 20
"""Bytes of a request: mostly the environment."""


class ForkedWorker(Worker):
    """A worker whose process begins with TensorFlow imported."""

    def _start(self, descriptor: int, log: IO[bytes], environment: dict[str, str]) -> Any:
        return _server().start(descriptor, log.fileno(), environment)


class Forked:
    """What Worker needs of subprocess.Popen, for a child of the server."""

    def __init__(self, server: _Server, pid: int) -> None:
        self._server, self.pid, self.returncode = server, pid, None

    def poll(self) -> int | None:
        return self._ended("poll")

    def wait(self) -> int | None:
        return self._ended("wait")

    def _ended(self, how: str) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask({how: self.pid})
        return self.returncode


class _Server:
    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                python(_SERVE, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        atexit.register(self.close)

    def start(self, descriptor: int, log: int, environment: dict[str, str]) -> Forked:
        request = {"environment": environment, "path": import_path()}
        return Forked(self, self.ask(request, [descriptor, log]))

    def ask(self, request: dict[str, Any], descriptors: list[int] | None = None) -> Any:
        with self._lock:
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors or [])
                return json.loads(self._socket.recv(_LONGEST))
            except BaseException:  # A reply that comes later would answer another request.
                _server.cache_clear()
                self._process.kill()
                self.close()
                raise

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


@cache
def _server() -> _Server:
    return _Server()


def serve(descriptor: int) -> None:
    """Fork a worker for each request, until the process that asks for them ends."""
    gc.disable()
    import tensorflow  # noqa: F401

    from edgesparse.methods import quantize_aware  # noqa: F401  # The toolkit with it.

    # Garbage collection of TensorFlow's objects in a worker would copy the pages that they lie in.
    gc.freeze()
    gc.enable()
    asking = socket.socket(fileno=descriptor)
    while True:
        content, descriptors, *_ = socket.recv_fds(asking, _LONGEST, 2)
        if not content:
            return
        request = json.loads(content)
        if "environment" in request:
            reply = _fork(asking, request, *descriptors)
        else:
            ((how, pid),) = request.items()
            ended, status = os.waitpid(pid, os.WNOHANG if how == "poll" else 0)
            reply = os.waitstatus_to_exitcode(status) if ended else None
        asking.send(json.dumps(reply).encode())


def _fork(asking: socket.socket, request: dict[str, Any], connection: int, log: int) -> int:
    ready, when_ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        asking.close()
        os.close(ready)
        os.setsid()
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.path[:] = request["path"]
        tempfile.tempdir = None
        random.seed()
        sys.modules["numpy"].random.seed()
        os.close(when_ready)  # From now on it can be killed with its group.
        try:
            worker_main.main(connection)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)
    os.close(when_ready)
    os.read(ready, 1)
    for descriptor in (ready, connection, log):
        os.close(descriptor)
    return pid
