"""A real OpenSSH server for a module's tests."""

import pytest

from tests.sshd import ssh_server


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
