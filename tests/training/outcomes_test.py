import dataclasses
import json
import math
import shlex

import pytest
from absl import flags

from training import command_line, outcomes
from training.config import ImageConfig, UserError
from training.table import Column, Row, Table

TABLE = Table(
    title="A table",
    claim="None.",
    source="None.",
    columns=(Column("Digits, LeNet", ImageConfig(epochs=2)),),
    rows=(Row("relu"), Row("pau", {"sharing": "channel"})),
    seeds=(0, 1),
)


def outcome(row="relu", seed=0, accuracy=0.5, table=TABLE, **metrics):
    run = next(run for run in table.runs() if (run.row.label, run.seed) == (row, seed))
    return outcomes.Outcome(
        run.column.label,
        row,
        seed,
        outcomes.command(run),
        {"final_accuracy": accuracy, "diverged": False, **metrics},
        {"backend": "jax", "versions": {"keras": "3.12"}, "trained_together": [0, 1]},
        [{"epoch": 1, "val_accuracy": 0.25}, {"epoch": 2, "val_accuracy": accuracy}],
    )


def finish(workdir, run, **result):
    workdir.mkdir(parents=True)
    result = {
        "metrics": {"final_accuracy": 0.5, "diverged": False},
        "backend": "jax",
        "config": dataclasses.asdict(run.config),
        **result,
    }
    (workdir / "result.json").write_text(json.dumps(result))


def test_a_run_without_a_result_has_no_outcome(tmp_path):
    assert outcomes.read(TABLE.runs()[0], tmp_path) is None


def test_the_outcome_of_a_run_is_what_it_left(tmp_path):
    run = TABLE.runs()[1]
    finish(tmp_path / "run", run)
    (tmp_path / "run" / "metrics.csv").write_text("epoch,val_accuracy\n1,0.25\n2,0.5\n")
    found = outcomes.read(run, tmp_path / "run")
    assert (found.key, found.metrics["final_accuracy"]) == (("Digits, LeNet", "pau", 0), 0.5)
    assert found.facts == {"backend": "jax"}
    assert found.curve == [{"epoch": 1, "val_accuracy": 0.25}, {"epoch": 2, "val_accuracy": 0.5}]


def test_a_number_that_json_does_not_have_is_read_as_that_number(tmp_path):
    run = TABLE.runs()[0]
    finish(tmp_path / "run", run, metrics={"final_accuracy": "nan", "diverged": True})
    found = outcomes.read(run, tmp_path / "run")
    assert math.isnan(found.metrics["final_accuracy"]) and found.diverged


def test_a_result_of_another_recipe_is_an_error(tmp_path):
    relu, pau = TABLE.runs()[:2]
    finish(tmp_path / "run", pau)
    with pytest.raises(
        UserError, match="belongs to another run: activation='pau' there and 'relu'"
    ):
        outcomes.read(relu, tmp_path / "run")


def test_the_command_repeats_the_run_in_a_shell():
    run = TABLE.runs()[1]
    *start, module = shlex.split(outcomes.command(run))[:3]
    assert (start, module) == (["python", "-m"], "training.image_classification")
    values = flags.FlagValues()
    command_line.define_flags(ImageConfig, values)
    values(shlex.split(outcomes.command(run))[2:])
    config, _ = command_line.from_flags(ImageConfig, values)
    assert config == run.config


def test_what_was_written_is_read_again(tmp_path):
    found = [outcome(), outcome("pau", 1, accuracy=1.0, seconds_per_epoch=0.25)]
    outcomes.write_csv(found, tmp_path, "table")
    written = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len((tmp_path / "table_curves.csv").read_text().splitlines()) == 1 + 4
    assert outcomes.read_csv(tmp_path, "table") == found
    outcomes.write_csv(outcomes.read_csv(tmp_path, "table"), tmp_path, "table")
    assert written == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_diverged_run_is_read_again(tmp_path):
    outcomes.write_csv([outcome(accuracy=math.nan, diverged=True)], tmp_path, "table")
    (found,) = outcomes.read_csv(tmp_path, "table")
    assert found.diverged and math.isnan(found.metrics["final_accuracy"])


def test_of_a_table_that_was_never_written_nothing_is_read(tmp_path):
    assert outcomes.read_csv(tmp_path, "table") == []


def test_new_outcomes_replace_kept_ones_and_other_runs_are_kept():
    kept = [outcome("pau", 1, accuracy=0.1), outcome("relu", 0, accuracy=0.2)]
    merged = outcomes.merge(TABLE, kept, [outcome("relu", 0, accuracy=0.9)])
    assert [(o.row, o.seed, o.metrics["final_accuracy"]) for o in merged] == [
        ("relu", 0, 0.9),
        ("pau", 1, 0.1),
    ]


@pytest.mark.parametrize(
    "now",
    [
        dataclasses.replace(TABLE, columns=(Column("Digits, LeNet", ImageConfig(epochs=3)),)),
        dataclasses.replace(TABLE, rows=(Row("pau"),)),
    ],
)
def test_outcomes_of_another_recipe_or_activation_are_not_kept(now):
    assert outcomes.merge(now, [outcome("relu")], []) == []


@pytest.mark.parametrize("text", ["nonsense\n1\n", "column,row,seed,command\na,b,first,c\n"])
def test_a_damaged_table_is_named(text, tmp_path):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match="table.csv or its _curves.csv is damaged: delete both"):
        outcomes.read_csv(tmp_path, "table")


def test_a_damaged_result_is_named(tmp_path):
    (tmp_path / "result.json").write_text('{"tru')
    with pytest.raises(UserError, match="result.json is damaged: delete it"):
        outcomes.read(TABLE.runs()[0], tmp_path)
