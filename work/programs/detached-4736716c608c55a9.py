"""Keeps a job's agent running on the device while connections to it are lost and restored.

    python detached.py attach FOLDER AGENT LEASE_SECONDS

starts the agent for FOLDER/job.json unless it runs already, and then copies all of its output, from
the beginning, to stdout until it ends. The end of stdin, which a lost connection looks like, ends
this program but not the agent; a line "stop" on stdin ends both. Without a client for LEASE_SECONDS
the agent is ended, too: its journal has the finished rounds, and a later attach continues from it.

Everything waits in select, so that no CPU time is taken from the measurement.
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
    """Connect to the keeper, which is started where it is missing, and copy its output."""
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
                data = os.read(stdin, BLOCK)
                if not data:
                    return 0
                if b"stop" in data:
                    connection.sendall(b"stop")


def write_all(descriptor, block):
    while block:
        block = block[os.write(descriptor, block) :]


def connect_or_start(agent, lease_seconds):
    with open("start.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Two clients must not start two keepers.
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
    """Start the keeper in a new session, and return once it accepts connections."""
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
    """Run the keeper; never returns."""
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
    """Sends the agent's output to all clients."""

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
        while not self.is_delivered():
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

    def is_delivered(self):
        """Return whether the agent has ended and all of its output was sent."""
        all_sent = all(count == len(self.output) for count in self.sent.values())
        return self.ended and self.attached and all_sent

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
        """Wait for its input, and for space to write where output is left to send."""
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
                data = connection.recv(64)
                if b"stop" in data:
                    self.stop()
                if not data:
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
        """End the agent, which ends its measuring process."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)


def main(argv):
    if len(argv) != 4 or argv[0] != "attach":
        sys.stderr.write(__doc__)
        return 2
    os.umask(os.umask(0) | 0o022)  # The socket is writable for this user only.
    agent = os.path.abspath(argv[2])
    # A socket's path must be short: use a relative one.
    os.chdir(argv[1])
    try:
        return attach(agent, float(argv[3]))
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
