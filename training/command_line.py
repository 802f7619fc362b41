"""The command line of every training program: the fields of its configuration as flags.

Precedence, from weak to strong: the defaults of the configuration, a preset (`--config=FILE`),
`--quick`, the other flags.
"""

import dataclasses
import json
import os
import sys
import types
import typing
from pathlib import Path

from absl import app, flags, logging

from training.config import Config, StartAgain, UserError, load_preset, quick

# The fields that a run is called by.
CALLED_BY = ("dataset", "network", "activation", "seed")


def start(config_class: type[Config], main) -> None:
    """Runs `main(argv)` with the flags of a configuration."""
    define_flags(config_class)
    run(main)


def run(main) -> None:
    """Runs `main(argv)`: what only the user can mend is a message, without a traceback."""
    logging.set_verbosity(logging.WARNING)
    try:
        app.run(lambda argv: main(_only_flags(argv)))
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on from here.")
    except StartAgain as error:
        print(error, file=sys.stderr, flush=True)
        # As a new process: the servers of TensorFlow's workers cannot begin anew in this one.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _only_flags(argv):
    if argv[1:]:
        raise UserError(
            "Every word of the command must be a flag, --name=value without spaces. Received: "
            + " ".join(argv[1:])
        )
    return argv


def define_flags(config_class: type[Config], values: flags.FlagValues = flags.FLAGS) -> None:
    """One flag for each field; a flag that is not given is None and leaves the field alone."""
    # Flags of the program, not of this module: --help lists only those.
    here = {"flag_values": values, "module_name": sys.argv[0]}
    flags.DEFINE_string("config", None, "preset, say training/configs/NAME.py", **here)
    flags.DEFINE_string("workdir", None, "where everything is written (default: runs/…)", **here)
    for field, kind in _fields(config_class):
        define = {
            str: flags.DEFINE_string,
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
            bool: flags.DEFINE_bool,
            tuple: flags.DEFINE_list,
            dict: flags.DEFINE_string,
        }[kind]
        default = getattr(config_class(), field.name)
        help = f"{field.metadata['help']} (default: {default})"
        define(field.name, None, help, **here)


def from_flags(
    config_class: type[Config], values: flags.FlagValues = flags.FLAGS
) -> tuple[Config, str]:
    """The configuration and the workdir that the flags ask for."""
    config = load_preset(values.config, config_class) if values.config else config_class()
    given = {}
    for field, kind in _fields(config_class):
        value = values[field.name].value
        if value is not None:
            given[field.name] = _parse(field.name, kind, value)
    if given.get("quick"):
        config = quick(config)
    config = dataclasses.replace(config, **given)
    return config, values.workdir or _workdir(config, values.config)


def to_flags(config: Config) -> list[str]:
    """The flags that give this configuration, without those that do not change its result.

    What a run is called by is always among them; of the rest, what is not the default.

    Errors: a `UserError` for None where the default is another: no flag can say it.
    """
    given = []
    for field, kind in _fields(type(config)):
        value = getattr(config, field.name)
        default = value == getattr(type(config)(), field.name)
        if not field.metadata["result"] or (default and field.name not in CALLED_BY):
            continue
        if value is None:
            raise UserError(f"No flag gives {field.name}=None. Received: {config}")
        if kind is bool:
            given.append(f"--{field.name}" if value else f"--no{field.name}")
        elif kind is tuple:
            given.append(f"--{field.name}={','.join(map(str, value))}")
        else:
            given.append(f"--{field.name}={json.dumps(value) if kind is dict else value}")
    return given


def _fields(config_class):
    """Each field with its plain type: `float | None` is float, `tuple[int, ...]` is tuple."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        kind = hints[field.name]
        if isinstance(kind, types.UnionType):
            kind = typing.get_args(kind)[0]
        yield field, typing.get_origin(kind) or kind


def _parse(name, kind, value):
    if kind is tuple:
        return tuple(int(part) for part in value)
    if kind is dict:
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            parsed = None
        if not isinstance(parsed, dict):
            raise UserError(
                f'--{name} must be a JSON object, say \'{{"sharing": "channel"}}\'. '
                f"Received: {value}"
            )
        return parsed
    return value


def _workdir(config, preset):
    """The default: one folder for each preset or problem, and seed."""
    words = [Path(preset).stem] if preset else [config.dataset, config.network, config.activation]
    words += [f"seed{config.seed}"] + ["quick"] * config.quick
    return f"runs/{'_'.join(words)}"
