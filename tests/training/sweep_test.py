import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from absl import flags

from keras_learnact import PAU, history
from training import (
    command_line,
    engines,
    learned,
    outcomes,
    pruning_table,
    records,
    sweep,
    tabulate,
)
from training.config import PruningConfig, UserError
from training.table import PROGRAMS, Row, load, quick_form

pytestmark = pytest.mark.once

ACCURACY = {"relu": 0.5, "pau": 0.75}


class Engine:
    """Leaves results without training, so that what a sweep makes of them is tested in no time."""

    def __init__(self, stop_after=None):
        self.names, self.stop_after = [], stop_after

    def __call__(self, jobs, finished):
        for job in jobs:
            if len(self.names) == self.stop_after:
                raise KeyboardInterrupt
            self.names.append(job.name)
            activation = job.name.split("/")[1]
            if activation in ACCURACY:
                _leave(job, ACCURACY[activation])
            finished(job, int(activation not in ACCURACY))


def _leave(job, accuracy):
    """What the program of the job leaves in the folder that its flags name."""
    (config_class,) = (c for c, program in PROGRAMS.items() if program == job.command[2])
    values = flags.FlagValues()
    command_line.define_flags(config_class, values)
    values(job.command[2:])
    config, workdir = command_line.from_flags(config_class, values)
    folder = Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {
        "best_accuracy": accuracy,
        "final_accuracy": accuracy,
        "diverged": False,
        "parameters": 7,
        "seconds_per_epoch": 1.5,
    }
    if config_class is PruningConfig:
        whole = {**metrics, "filters": 10, "filters_left": 1.0, "multiply_adds": 100, "time": 1.0}
        rows = [{"removed": share, **whole} for share in (0, *config.shares)]
        metrics = pruning_table.to_metrics(rows)
    result = {
        "metrics": metrics,
        "config": dataclasses.asdict(config),
        "activation_path": "kernel",
        "backend": "jax",
        "versions": {"keras": "3.12"},
        "dataset": "digits",
    }
    (folder / "result.json").write_text(json.dumps(result))
    assert records.finished(folder, config) == metrics
    (folder / "metrics.csv").write_text(f"epoch,val_accuracy,seconds\n1,{accuracy},1.5\n")


def run(tmp_path, engine, name="digits", table=None, **only):
    only = {"rows": ["relu", "pau"], "seeds": ["0"], **only}
    folders = tmp_path / "runs", tmp_path / "results"
    return sweep.sweep(table or load(name), name, *folders, engine, only=only)


def accuracies(tmp_path):
    found = outcomes.read_csv(tmp_path / "results", "digits")
    return {(o.row, o.seed): o.metrics["final_accuracy"] for o in found}


def test_what_is_done_is_skipped_and_a_deleted_table_comes_back(tmp_path):
    assert run(tmp_path, Engine()) == []
    written = {path: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    assert {path.suffix for path in written} == {".csv", ".md", ".png"}
    for path in written:
        path.unlink()
    engine = Engine()
    run(tmp_path, engine)
    assert engine.names == []
    for path, content in written.items():
        assert path.suffix == ".png" or path.read_bytes() == content
    assert accuracies(tmp_path) == {("relu", 0): 0.5, ("pau", 0): 0.75}


def test_an_interrupted_sweep_leaves_the_table_of_what_it_has(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Engine(stop_after=1))
    assert accuracies(tmp_path) == {("relu", 0): 0.5}
    engine = Engine()
    run(tmp_path, engine)
    assert engine.names == ["digits_lenet/pau/seed0"]


def test_results_from_elsewhere_are_kept(tmp_path):
    run(tmp_path, Engine(), seeds=["1"])
    folders = tmp_path / "other", tmp_path / "results"
    sweep.sweep(load("digits"), "digits", *folders, Engine(), only={"rows": ["pau"]})
    assert accuracies(tmp_path) == {("relu", 1): 0.5, **{("pau", seed): 0.75 for seed in range(5)}}


def test_results_of_another_recipe_are_not_kept_and_that_is_said(tmp_path, capsys):
    run(tmp_path, Engine(), table=quick_form(load("digits")))
    folders = tmp_path / "other", tmp_path / "results"
    sweep.sweep(load("digits"), "digits", *folders, Engine(), only={"rows": ["pau"]})
    assert "digits.csv has 2 results of another recipe, which go" in capsys.readouterr().out
    assert set(accuracies(tmp_path)) == {("pau", seed) for seed in range(5)}


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path, capsys):
    (failed,) = run(tmp_path, Engine(), rows=["elu", "pau"])
    assert failed.startswith("digits_lenet/elu/seed0: see ")
    assert accuracies(tmp_path) == {("pau", 0): 0.75}
    output = capsys.readouterr().out
    assert "[1/2] digits_lenet/elu/seed0  FAILED with exit code 1: it printed nothing" in output
    assert "[2/2] digits_lenet/pau/seed0  75.00%  about 0 s left" in output


def test_a_table_that_cannot_be_written_does_not_stop_the_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "WRITE_EVERY", 0)
    with monkeypatch.context() as full:
        full.setattr(tabulate, "write", _fail)
        with pytest.raises(OSError, match="disk is full"):
            run(tmp_path, engine := Engine())
    assert len(engine.names) == 2
    assert capsys.readouterr().out.count("The table could not be written, the runs go on") == 2
    run(tmp_path, engine := Engine())
    assert engine.names == [] and (tmp_path / "results" / "digits.md").exists()


def _fail(*arguments):
    raise OSError("the disk is full")


def test_a_quick_table_has_two_steps_a_run_and_its_results_never_pass_for_others(tmp_path):
    quick = quick_form(load("lenet_reduced"))
    for wanted in quick.runs():
        config = wanted.config
        assert (config.quick, config.epochs, config.examples) == (True, 1, 2 * config.batch_size)
    run(tmp_path, Engine(), "lenet_reduced", quick)
    with pytest.raises(UserError, match="belongs to another run: .*epochs=1 there and 2 here"):
        run(tmp_path, engine := Engine(), "lenet_reduced")
    assert engine.names == []
    (kept,) = sweep.select(load("lenet_reduced"), ["mnist_lenet"], ["pau"], ["0"])
    found = outcomes.read_csv(tmp_path / "results", "lenet_reduced")
    assert kept.key in {outcome.key for outcome in found}
    assert outcomes.merge(load("lenet_reduced"), found, []) == []


def test_pruned_networks_have_a_table_of_their_own(tmp_path):
    assert run(tmp_path, Engine(), "lenet_pruning_reduced") == []
    page = (tmp_path / "results" / "lenet_pruning_reduced.md").read_text()
    assert "| removed | filters left | multiply-adds left | relu | pau |" in page
    assert (tmp_path / "results" / "lenet_pruning_reduced.png").exists()


def test_the_seeds_of_one_network_can_make_one_job(tmp_path):
    runs = sweep.select(load("digits"), rows=["rpau"], seeds=["0", "3"])
    ((job, of),) = sweep.jobs(runs, tmp_path, ("--data_dir=D",), seeds_together=True)
    assert of == runs
    assert job.workdir == tmp_path / "digits_lenet" / "rpau"
    assert job.command[2:4] == ["training.seeds", "--seeds=0,3"]
    assert job.command[-2:] == ["--data_dir=D", f"--workdir={job.workdir}"]
    assert not [flag for flag in job.command if flag.startswith("--seed=")]


def test_two_sweeps_do_not_work_in_one_folder(tmp_path):
    class Second:
        def __call__(self, jobs, finished):
            with pytest.raises(UserError, match="Another sweep works in"):
                run(tmp_path, Engine())

    run(tmp_path, Second())


def program(*arguments, start=subprocess.run, **options):
    command = [sys.executable, "-m", "training.sweep", *arguments]
    return start(command, cwd=engines.REPOSITORY, text=True, **options)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--table is needed: one of "),
        (["--table=pau_table99"], "The table must be one of "),
        (
            ["--table=digits", "--rows=relu,gelulu"],
            "--rows must be among relu, .*Received: 'gelulu'",
        ),
        (["--table=digits", "--columns=VGG"], "--columns must be among digits_lenet"),
        (["--table=digits", "--rows="], "--rows must be among relu, .*Received: nothing"),
        (["--table=digits", "--seeds=0,9"], "--seeds must be among 0, 1, 2, 3, 4. Received: '9'"),
        (["--table=digits", "--gpus=977"], r"--gpus must be among the \d+ that .*977"),
        (["--table=digits", "--gpus=first"], "--gpus must be numbers, say 0,1. Received: first"),
        (["--table=digits", "--jobs=0"], "--jobs must be 1 or more. Received: 0"),
        (["--table=digits", "--engine=ray", "--jobs=2"], "With --engine=ray there is no --jobs"),
        (["--table=digits", "--cores=2"], "With --engine=local there is no --cores"),
        (
            ["--table=deu_diabetes", "--seeds_together"],
            "--seeds_together trains image classifiers on JAX.* training.regression",
        ),
        (
            ["--table=lenet_pruning", "--seeds_together"],
            "--seeds_together trains image classifiers on JAX.* training.pruning",
        ),
        (["--table=pau_table2", "--data_dir=NOWHERE"], "fashion_mnist is not in .*NOWHERE"),
    ],
)
def test_wrong_flags_fail_before_any_training_starts(arguments, message, tmp_path):
    workdir = tmp_path / "runs"
    values = flags.FlagValues()
    sweep.define_flags(values)
    arguments = [argument.replace("NOWHERE", str(tmp_path / "NOWHERE")) for argument in arguments]
    values(["sweep", *arguments, f"--workdir={workdir}"])
    with pytest.raises(UserError, match=message):
        sweep.from_flags(values)
    assert not workdir.exists()


def test_a_wrong_flag_shows_a_message_and_no_traceback():
    failed = program("--table=pau_table99", capture_output=True)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("The table must be one of ")
    assert "Traceback" not in failed.stderr


def test_a_sweep_that_was_killed_goes_on(tmp_path):
    """With real trainings, of two steps."""
    arguments = ["--table=digits", "--rows=relu,pau", "--seeds=0", "--jobs=1", "--quick"]
    arguments += [f"--workdir={tmp_path}"]
    first, second = (tmp_path / "digits_lenet" / name / "seed0" for name in ("relu", "pau"))
    killed = program(*arguments, start=subprocess.Popen, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while not (first / "result.json").exists():
        assert time.monotonic() < end and killed.poll() is None
        time.sleep(0.1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (second / "result.json").exists()
    before = (first / "result.json").stat().st_mtime_ns

    again = program(*arguments, check=True, capture_output=True)
    assert "2 runs, 1 of them finished" in again.stdout
    assert "[1/1] digits_lenet/pau/seed0" in again.stdout
    assert (first / "result.json").stat().st_mtime_ns == before
    assert (second / "result.json").exists()
    text = (tmp_path / "digits.md").read_text()
    assert "relu" in text and "pau" in text


def test_what_an_activation_learned_is_drawn(tmp_path):
    class Trained(Engine):
        def __call__(self, jobs, finished):
            super().__call__(jobs, finished)
            x = np.ones((2, 4), "float32")
            for job in jobs:
                model = keras.Sequential([keras.Input((4,)), PAU(name="first"), PAU(name="last")])
                history.History.of(model, x).save(job.workdir / history.FILE_NAME)

    assert run(tmp_path, Trained(), rows=["pau"]) == []
    text = (tmp_path / "results" / "digits.md").read_text()
    assert "![The functions of pau](digits_functions.png)" in text
    picture = (tmp_path / "results" / "digits_functions.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    # It stays where other runs are.
    folders = tmp_path / "other", tmp_path / "results"
    sweep.sweep(load("digits"), "digits", *folders, Engine(), only={"seeds": ["1"]})
    assert (tmp_path / "results" / "digits_functions.png").read_bytes() == picture


def test_without_finished_runs_nothing_is_drawn(tmp_path):
    learned.write(load("digits"), "digits", tmp_path, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_activation_that_cannot_be_made_is_an_error_before_any_training(tmp_path, monkeypatch):
    table = dataclasses.replace(
        load("digits"), rows=(Row("relu"), Row("pau", {"sharing": "chanel"}))
    )
    monkeypatch.setattr(sweep.tables, "load", lambda name: table)
    values = flags.FlagValues()
    sweep.define_flags(values)
    values(["sweep", "--table=mine", f"--workdir={tmp_path / 'runs'}"])
    with pytest.raises(UserError, match="--activation=pau .*chanel"):
        sweep.from_flags(values)
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UserError, match="A folder is needed that can be made. Received: .*results"):
        run(tmp_path, Engine())


def test_a_word_that_is_no_flag_is_an_error():
    failed = program("--table=digits", "extra", capture_output=True)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].endswith("without spaces. Received: extra")
