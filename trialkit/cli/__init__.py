"""The command line: one thin module a subcommand, one boundary for errors.

Data goes to standard output, chatter and complaints to standard error. Exit codes: 0 done; 1 a check or a
verification did not hold; 2 bad input or usage; 3 refused; 4 could not write; 130 interrupted. Heavy imports
stay inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from pathlib import Path

import typer

from trialkit.cli import allocate, analyse, check, demo, icc, power, simulate

app = typer.Typer(
    name="trialkit",
    help="Cluster-randomised trials from site list to published table.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from trialkit import __version__

        typer.echo(f"trialkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and stop.")) -> None:
    pass


app.command("demo")(demo.demo)
app.add_typer(allocate.app, name="allocate")
app.command("power")(power.power)
app.command("icc")(icc.icc)
app.command("analyse")(analyse.analyse)
app.command("simulate")(simulate.simulate)
app.command("check")(check.check)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; no traceback reaches the user."""
    warnings.showwarning = _warn
    if sys.stdout is None or sys.stdout.closed:  # started with its output closed: there is nobody to print to
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        result = app(args=arguments, standalone_mode=False)
        sys.stdout.flush()
        code = result if isinstance(result, int) else 0
        if code == 130:
            typer.echo("interrupted", err=True)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        code = 130
    except BrokenPipeError:
        code = _reader_gone()
    except SystemExit:
        # nothing of ours raises it: parser and console turn a broken pipe into exit 1, which here means "did not hold"
        code = _reader_gone()
    except Exception as error:
        code = _complain(error)
    if arguments is None:
        sys.exit(code)
    return code


def _reader_gone() -> int:
    """The reader of our output went away (`| head`): nothing is wrong, and Python's own last flush must not complain."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _warn(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: object = None, line: str | None = None
) -> None:
    """A warning as one line for a person: what, not where in the code."""
    typer.echo(f"warning: {message}", err=True)


def _complain(error: Exception) -> int:
    """One message for one error; the code it carries, or 70 for a fault of trialkit's own."""
    show = getattr(error, "show", None)
    if callable(show):  # a usage error of the command line itself
        show()
        return int(getattr(error, "exit_code", 2))
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        message = str(error)
        if message:
            typer.echo(f"{type(error).__name__}: {message}" if type(error).__name__ != "Exit" else message, err=True)
        return code
    if isinstance(error, MemoryError):
        typer.echo("trialkit ran out of memory. Use fewer imputations or trials at a time.", err=True)
        return 2
    if isinstance(error, OSError):
        typer.echo(f"WriteError: {error.filename or 'a file'}: {error.strerror or error}.", err=True)
        return 4
    where = traceback.extract_tb(error.__traceback__)[-1]
    typer.echo(
        f"trialkit met a fault of its own: {type(error).__name__} in {where.name} (line {where.lineno} of {Path(where.filename).name}). "
        "Nothing was half written. Please report it with the command you ran; TRIALKIT_DEBUG=1 shows more.",
        err=True,
    )
    if os.environ.get("TRIALKIT_DEBUG"):
        traceback.print_exception(error)
    return 70
