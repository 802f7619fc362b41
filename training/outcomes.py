"""What came out of the runs of a table: read from their workdirs, kept as CSV."""

import contextlib
import csv
import dataclasses
import io
import json
import shlex
from collections.abc import Iterable
from pathlib import Path

from keras_learnact.files import written
from training import command_line, loop
from training.config import UserError
from training.table import Run, Table

# What result.json says of a run beside its configuration and its metrics.
FACTS = ("activation_path", "backend", "versions", "trained_together")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished run.

    Args:
        column: the label of its column.
        row: the label of its row.
        seed: its seed.
        command: the command that repeats it.
        metrics: of result.json, as numbers.
        facts: what else result.json says: `FACTS`.
        curve: the rows of metrics.csv, one for each epoch; of the first fold in a
            cross-validation.
    """

    column: str
    row: str
    seed: int
    command: str
    metrics: dict
    facts: dict
    curve: list[dict]

    @property
    def key(self) -> tuple[str, str, int]:
        return self.column, self.row, self.seed

    @property
    def diverged(self) -> bool:
        return bool(self.metrics["diverged"])


def read(run: Run, workdir: Path) -> Outcome | None:
    """The outcome of a run from its workdir; None if it has not finished.

    Errors: a `UserError` if the result there is that of another configuration.
    """
    path = workdir / "result.json"
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged: delete it, its run ends again. ({error})") from error
    loop.assert_same_run(run.config, result["config"], path)
    curve = next(iter(sorted(workdir.glob("**/metrics.csv"))), None)
    return Outcome(
        *run.key,
        command=command(run),
        metrics={name: _number(value) for name, value in result["metrics"].items()},
        facts={name: result[name] for name in FACTS if name in result},
        curve=_read_rows(curve) if curve else [],
    )


def first_sound(runs: Iterable[Run], workdir: Path, file: str) -> dict:
    """{(column, row): (outcome, path)} of the first run of each that finished, not diverged.

    Args:
        runs: in the order of their seeds.
        workdir: where they are.
        file: the name of a file that a run leaves; of a cross-validation the first fold's.
    """
    found = {}
    for run in runs:
        place = run.column.label, run.row.label
        if place not in found:
            outcome = read(run, workdir / run.folder)
            paths = sorted((workdir / run.folder).rglob(file))
            if outcome and not outcome.diverged and paths:
                found[place] = outcome, paths[0]
    return found


def command(run: Run) -> str:
    """What repeats a run, from the repository: without the folders of this machine."""
    return shlex.join(["python", "-m", run.program, *command_line.to_flags(run.config)])


def merge(table: Table, kept: list[Outcome], new: list[Outcome]) -> list[Outcome]:
    """The new outcomes, and the kept ones of other runs, in the order of the table.

    Left out is what the table, as it is now, does not have: another recipe, another activation.
    """
    found = {outcome.key: outcome for outcome in [*kept, *new]}
    runs = {run.key: command(run) for run in table.runs()}
    return [found[key] for key, text in runs.items() if key in found and found[key].command == text]


def write_csv(outcomes: list[Outcome], folder: Path, name: str) -> None:
    """Writes `<name>.csv`, a line for each run, and `<name>_curves.csv`, one for each epoch."""
    points = [
        {"column": outcome.column, "row": outcome.row, "seed": outcome.seed, **point}
        for outcome in outcomes
        for point in outcome.curve
    ]
    write_rows(folder / f"{name}_curves.csv", points)
    metrics = _union(outcome.metrics for outcome in outcomes)
    lines = [
        {
            "column": outcome.column,
            "row": outcome.row,
            "seed": outcome.seed,
            **{metric: outcome.metrics.get(metric, "") for metric in metrics},
            **{fact: _text(outcome.facts.get(fact, "")) for fact in FACTS},
            "command": outcome.command,
        }
        for outcome in outcomes
    ]
    # The last, because it says which runs there are.
    write_rows(folder / f"{name}.csv", lines)


def read_csv(folder: Path, name: str) -> list[Outcome]:
    """What `write_csv` wrote; nothing if there is no such file.

    Errors: a `UserError` if it is another file.
    """
    path, curves = folder / f"{name}.csv", {}
    try:
        for point in _read_rows(folder / f"{name}_curves.csv"):
            key = str(point.pop("column")), str(point.pop("row")), int(point.pop("seed"))
            curves.setdefault(key, []).append({k: v for k, v in point.items() if v != ""})
        return [_outcome(line, curves) for line in _read_lines(path)]
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} or its _curves.csv is damaged: delete both, the sweep writes them anew. "
            f"({error!r})"
        ) from error


def _outcome(line, curves):
    key = line.pop("column"), line.pop("row"), int(line.pop("seed"))
    text = line.pop("command")
    facts = {fact: _fact(line.pop(fact)) for fact in FACTS if fact in line}
    return Outcome(
        *key,
        command=text,
        metrics={metric: _number(value) for metric, value in line.items() if value != ""},
        facts={fact: value for fact, value in facts.items() if value != ""},
        curve=curves.get(key, []),
    )


def _union(dictionaries):
    return list(dict.fromkeys(key for dictionary in dictionaries for key in dictionary))


def _number(value):
    """`value` of JSON or CSV: a bool, an int or a float; "nan" and "inf" are floats."""
    if value in ("True", "False"):
        return value == "True"
    for kind in (int, float) if isinstance(value, str) else ():
        with contextlib.suppress(ValueError):
            return kind(value)
    return value


def _text(fact):
    return fact if isinstance(fact, str) else json.dumps(fact)


def _fact(text):
    return json.loads(text) if text.startswith(("{", "[")) else text


def _read_lines(path):
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _read_rows(path):
    return [{name: _number(value) for name, value in row.items()} for row in _read_lines(path)]


def write_rows(path: Path, rows: list[dict]) -> None:
    """Writes a CSV file: a line for each row, a column for each key that any of them has."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _union(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with written(path, "w") as file:
        file.write(text.getvalue())
