"""The `edgesparse` command, and python -m edgesparse."""

import os
import sys

# Python has put the current folder first: what lies in it replaces no module of anybody's.
if __name__ == "__main__" and sys.path[0] in ("", os.getcwd()):  # noqa: PTH109 (pathlib comes later)
    sys.path.append(sys.path.pop(0))

import signal


def main() -> None:
    """Run the program; Ctrl-C ends it with its exit code, and no traceback, from the beginning."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:  # While it is imported there is nothing to tidy up.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from edgesparse.cli.main import main as program

    try:
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        program()
    except KeyboardInterrupt:
        os._exit(130)


if __name__ == "__main__":
    main()
