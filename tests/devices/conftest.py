"""A real OpenSSH server for a module's tests."""

import os

import pytest

from tests.tools.sshd import ssh_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ssh_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def board(server):
    """A connection to it."""
    transport = server.connect()
    yield transport
    transport.close()


@pytest.fixture
def big(tmp_path):
    """A file of 3 MB that does not compress."""
    path = tmp_path / "big.tflite"
    path.write_bytes(os.urandom(3_000_000))
    return path
