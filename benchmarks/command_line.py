"""The command line of every benchmark: the fields of its configuration as flags.

Precedence, from weak to strong: the defaults, `--quick`, the other flags.
"""

import argparse
import dataclasses
import sys
import typing
from pathlib import Path

from training.config import UserError


def field(default, help):
    """A field of a configuration with its `--help` text."""
    return dataclasses.field(default=default, metadata={"help": help})


def start(default, quick, run, description: str) -> None:
    """Runs `run` with the configuration that the command line asks for.

    Args:
        default: the configuration without flags; its fields are the flags.
        quick: the configuration of `--quick`.
        run: takes the configuration.
        description: what `--help` says first.
    """
    try:
        run(parsed(default, quick, sys.argv[1:], description))
    except UserError as error:
        sys.exit(str(error))


def parsed(default, quick, arguments: list[str], description: str = ""):
    """The configuration that these arguments ask for."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds: it runs, and shows nothing")
    hints = typing.get_type_hints(type(default))
    for flag in dataclasses.fields(default):
        value = getattr(default, flag.name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        parser.add_argument(
            f"--{flag.name}",
            type=_kind(hints[flag.name]),
            default=argparse.SUPPRESS,
            help=f"{flag.metadata['help']} (default: {shown})",
        )
    given = vars(parser.parse_args(arguments))
    if not given.pop("quick"):
        return dataclasses.replace(default, **given)
    results = {"results": f"build/quick/{Path(default.results).name}"}  # never what was measured
    return dataclasses.replace(quick, **{**results, **given})


def _kind(hint):
    if typing.get_origin(hint) is not tuple:
        return hint
    kind, _ = typing.get_args(hint)

    def listed(text):
        return tuple(kind(part) for part in text.split(",") if part)

    listed.__name__ = f"list of {kind.__name__}"  # of argparse's messages
    return listed
