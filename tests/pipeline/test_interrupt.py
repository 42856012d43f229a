import os
import signal
import subprocess
import sys

import pytest

from edgesparse.pipeline.interrupt import deferred_interrupt


def test_a_signal_waits_for_a_safe_place(capfd):
    reached = []

    def block():
        with deferred_interrupt() as check:
            check()
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("after the signal")
            check()
            reached.append("never")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        block()
    assert "stopping as soon as possible" in capfd.readouterr().err
    assert reached == ["after the signal"]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_end_of_the_block_is_safe_too():
    def block():
        with deferred_interrupt():
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        block()


def test_a_second_signal_ends_the_process():
    script = (
        "import os, signal\nfrom edgesparse.pipeline.interrupt import deferred_interrupt\n"
        "with deferred_interrupt():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('never')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.count("stopping as soon as possible") == 1
