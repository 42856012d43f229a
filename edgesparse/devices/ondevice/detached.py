"""Keeps a job's agent running on the device while connections to it come and go.

    python detached.py attach FOLDER AGENT LEASE_SECONDS

starts the agent for FOLDER/job.json unless it runs already, and then repeats on stdout everything it
has said and says, until it ends. The end of stdin (which is what a broken connection looks like)
ends this program, not the agent; a line "stop" on stdin ends both. With nobody attached for
LEASE_SECONDS the agent is ended too: what it finished is in its journal, and a later attach goes on
from there.

Everything waits in select: nothing here takes CPU time from what is being measured.
"""

import errno
import fcntl
import os
import selectors
import signal
import socket
import subprocess
import sys
import time

SOCKET = "socket"
JOURNAL = "journal.jsonl"
STOP_SECONDS = 5.0
FIRST_SECONDS = 30.0
BLOCK = 65536


def attach(agent, lease_seconds):
    """The client: connect to the keeper, or start one; then pass on what it says."""
    connection = connect_or_start(agent, lease_seconds)
    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    selector = selectors.DefaultSelector()
    selector.register(connection, selectors.EVENT_READ)
    selector.register(stdin, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is connection:
                block = connection.recv(BLOCK)
                if not block:
                    return 0
                write_all(stdout, block)
            else:
                given = os.read(stdin, BLOCK)
                if not given:
                    return 0
                if b"stop" in given:
                    connection.sendall(b"stop")


def write_all(descriptor, block):
    while block:
        block = block[os.write(descriptor, block) :]


def connect_or_start(agent, lease_seconds):
    with open("start.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Two attaching at once must not start two keepers.
        connection = connected()
        if connection is None:
            start(agent, lease_seconds)
            connection = connected()
        if connection is None:
            raise SystemExit("the agent's keeper did not start")
        return connection


def connected():
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(SOCKET)
    except (OSError, FileNotFoundError):
        connection.close()
        return None
    return connection


def start(agent, lease_seconds):
    """Start the keeper in a session of its own, and return once it can be connected to."""
    if os.path.exists(SOCKET):
        os.remove(SOCKET)
    ready, tell_ready = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.close(ready)
            keep(agent, lease_seconds, tell_ready)
        os._exit(0)
    os.close(tell_ready)
    os.wait()
    os.read(ready, 1)
    os.close(ready)


def keep(agent, lease_seconds, tell_ready):
    """The keeper; never returns."""
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        log = os.open("keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for target, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, target)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(SOCKET)
        listener.listen(8)
        process = subprocess.Popen(
            [sys.executable, agent, "run", "job.json", JOURNAL],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )
        os.write(tell_ready, b"r")
        os.close(tell_ready)
        code = Keeper(listener, process, lease_seconds).run()
    finally:
        os._exit(code)


class Keeper:
    """Passes the agent's output to everyone who is attached."""

    def __init__(self, listener, process, lease_seconds):
        self.listener = listener
        self.process = process
        self.lease_seconds = lease_seconds
        self.output = bytearray()
        self.sent = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        self.selector.register(process.stdout, selectors.EVENT_READ)
        self.alone_since = time.monotonic()
        self.ended = False
        self.attached = False

    def run(self):
        while not self.heard_out():
            timeout = None
            if not self.sent:
                patience = self.lease_seconds if self.attached else FIRST_SECONDS
                timeout = self.alone_since + patience - time.monotonic()
                if timeout <= 0:
                    self.stop()
                    break
            for key, mask in self.selector.select(timeout):
                self.handle(key.fileobj, mask)
        os.remove(SOCKET)
        self.process.wait()
        return 0

    def heard_out(self):
        """Whether the agent has ended and everyone attached has heard its last word."""
        known = all(count == len(self.output) for count in self.sent.values())
        return self.ended and self.attached and known

    def handle(self, source, mask):
        if source is self.listener:
            self.attached = True
            connection, _ = source.accept()
            connection.setblocking(False)
            self.sent[connection] = 0
            self.watch(connection)
        elif source is self.process.stdout:
            block = os.read(source.fileno(), BLOCK)
            self.output += block
            if not block:
                self.ended = True
                self.selector.unregister(source)
            for connection in list(self.sent):
                self.watch(connection)
        elif source in self.sent:
            self.serve(source, mask)

    def watch(self, connection):
        """Wait for its words, and for room to write where something is left to say."""
        events = selectors.EVENT_READ
        if self.sent[connection] < len(self.output):
            events |= selectors.EVENT_WRITE
        try:
            self.selector.modify(connection, events)
        except KeyError:
            self.selector.register(connection, events)

    def serve(self, connection, mask):
        try:
            if mask & selectors.EVENT_READ:
                given = connection.recv(64)
                if b"stop" in given:
                    self.stop()
                if not given:
                    self.drop(connection)
                    return
            if mask & selectors.EVENT_WRITE:
                start = self.sent[connection]
                self.sent[connection] += connection.send(self.output[start : start + BLOCK])
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK):
                self.drop(connection)
                return
        self.watch(connection)

    def drop(self, connection):
        self.selector.unregister(connection)
        connection.close()
        del self.sent[connection]
        self.alone_since = time.monotonic()

    def stop(self):
        """End the agent, which ends what it measures."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)


def main(argv):
    if len(argv) != 4 or argv[0] != "attach":
        sys.stderr.write(__doc__)
        return 2
    os.umask(os.umask(0) | 0o022)  # Nobody else writes into the socket.
    agent = os.path.abspath(argv[2])
    # A socket's path must be short; relative to here it is.
    os.chdir(argv[1])
    try:
        return attach(agent, float(argv[3]))
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
