"""The `edgesparse` command, its errors and exit codes."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any

import click

from edgesparse import __version__
from edgesparse.cli import init, model_files, pipelines, runs
from edgesparse.cli.device import device
from edgesparse.cli.docs import docs
from edgesparse.cli.emulator import emulator
from edgesparse.cli.options import FAILED, INTERRUPTED, say
from edgesparse.spec.errors import EdgesparseError

_EPILOG = (
    "Exit codes: 0 done; 1 a stage or device failed; 2 wrong usage or invalid file; "
    "3 a gate failed or a run regressed; 130 interrupted (finished stages are kept)."
)

_RENAMED = {"sweep": "search"}
"""Former names of commands."""


_SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Pipelines": (
        pipelines.validate,
        pipelines.plan,
        pipelines.run,
        pipelines.deploy,
        pipelines.search,
        pipelines.sensitivity,
    ),
    "Model files": (
        model_files.bench,
        model_files.inspect,
        model_files.encode,
        model_files.compress,
    ),
    "Runs": (runs.report, runs.compare, runs.history, runs.export),
    "Devices": (device, emulator),
    "Set-up": (init.init, init.setup, docs, init.completion, pipelines.schema),
}


class _Group(click.Group):
    """Group that turns every user error into one message and a documented exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        _interrupt_on_signals()
        try:
            return super().main(*args, **kwargs)
        except SystemExit as ended:
            if ended.code == INTERRUPTED:
                _exit_interrupted()
            raise
        except BrokenPipeError:
            # The reader of our output (head, less) has closed the pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(0)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except KeyboardInterrupt:  # Click would print "Aborted!" and exit with 1.
            _exit_interrupted()
            raise

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _RENAMED and not ctx.resilient_parsing:  # Completion must not fail.
            ctx.fail(
                f"{cmd_name!r} is called {_RENAMED[cmd_name]!r}: edgesparse {_RENAMED[cmd_name]}"
            )
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what they are about."""
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(str(c.name), c.get_short_help_str(100)) for c in commands])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EdgesparseError as error:
            say(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            raise
        except OSError as error:
            # A full or read-only disk, most likely; finished stages are kept.
            file = f": {error.filename}" if error.filename else ""
            say(f"error: {error.strerror or error}{file}", err=True)
            ctx.exit(FAILED)
        except KeyboardInterrupt:
            with suppress(OSError):  # The terminal may have been closed.
                say("interrupted; finished stages are kept, the same command resumes", err=True)
            ctx.exit(INTERRUPTED)


def _exit_interrupted() -> None:
    """End with the documented code. Where an interrupt came while an extension module ran Python
    source, CPython remembers it as unhandled and would kill this process with SIGINT instead
    (run_eval_code_obj in its pythonrun.c)."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(INTERRUPTED)


def _interrupt_on_signals() -> None:
    """Treat SIGTERM (kill, systemd, CI) and SIGHUP (a closed terminal) like Ctrl-C: results are
    written, devices and this machine are tidied up. Further signals are ignored meanwhile."""

    def interrupt(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        # Under nohup SIGHUP is ignored already, and stays so.
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, interrupt)


@click.group(cls=_Group, epilog=_EPILOG, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="edgesparse")
def main() -> None:
    """Sparse neural networks on real edge devices: train, store the zeros, deploy, measure."""


for section in _SECTIONS.values():
    for command in section:
        main.add_command(command)
