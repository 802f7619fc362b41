"""Reproduces a table: runs what it consists of, and writes it.

    python -m training.sweep --table=digits
    python -m training.sweep --table=pau_table2 --columns=mnist_lenet --rows=relu,pau --seeds=0,1
    python -m training.sweep --table=pau_table3 --gpus=0,1 --data_dir=DIR
    python -m training.sweep --table=pau_table3 --engine=ray --ray_address=HOST:6379

Every run has a folder in `--workdir`. The same command again skips what is finished, goes on where
it was killed, and writes `<table>.csv`, `.md` and `.png` into `--results_dir`. Runs of the same
recipe that the CSV there has from elsewhere are kept.
"""

import contextlib
import functools
import os
import sys
import time
from pathlib import Path

import keras
from absl import flags

from training import (
    aggregate,
    command_line,
    datasets,
    engines,
    fits,
    learned,
    networks,
    outcomes,
    pruning_table,
    tabulate,
)
from training import table as tables
from training.config import ImageConfig, PruningConfig, UserError

ENGINES = ("local", "ray")
# Seconds between two writings of the table while runs still end.
WRITE_EVERY = 60


def sweep(
    table: tables.Table,
    name: str,
    workdir: Path,
    results_dir: Path,
    engine,
    *,
    only: dict | None = None,
    program_flags: tuple[str, ...] = (),
    seeds_together: bool = False,
) -> list[str]:
    """Runs what a table still lacks, and writes it.

    Args:
        table: what is to be there.
        name: of the table.
        workdir: where the runs are.
        results_dir: where the table goes.
        engine: runs `engine(jobs, finished)`, see `training.engines`.
        only: of `columns`, `rows`, `seeds` those that are to be run; None: all.
        program_flags: for every run, say `--data_dir=…`.
        seeds_together: train the seeds of one network in one step, see `training.seeds`.

    Returns:
        What failed, one line for each job.

    Errors: a `UserError` for unknown names, or if another sweep works in `workdir`, or one of
    another recipe did.
    """
    runs = select(table, **(only or {}))
    workdir, results_dir = workdir.resolve(), results_dir.resolve()
    for folder in (workdir, results_dir):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"A folder is needed that can be made. Received: {error}") from error
    with _alone(workdir):
        finished = {outcome.key for outcome in _outcomes(table, workdir)}
        open_runs = [run for run in runs if run.key not in finished]
        print(
            f"{table.title}\n{len(runs)} runs, {len(runs) - len(open_runs)} of them finished. "
            f"Each has a folder in {workdir}"
        )
        kept = outcomes.read_csv(results_dir, name)
        if lost := len(kept) - len(outcomes.merge(table, kept, [])):
            print(f"{results_dir / name}.csv has {lost} results of another recipe, which go")
        work = jobs(open_runs, workdir, program_flags, seeds_together)
        log = _Log(table, name, workdir, results_dir, work)
        try:
            if work:
                engine([job for job, _ in work], log.finished)
        finally:
            log.write()
    return log.failed


def _outcomes(table, workdir):
    """What is finished there."""
    found = (outcomes.read(run, workdir / run.folder) for run in table.runs())
    return [outcome for outcome in found if outcome is not None]


def select(table, columns=None, rows=None, seeds=None) -> list[tables.Run]:
    """The runs of a table with these labels (or their names as folders) and seeds; None: all.

    Errors: a `UserError` for what the table does not have.
    """
    runs = table.runs()
    for kind, wanted, of in (
        ("columns", columns, lambda run: run.column.label),
        ("rows", rows, lambda run: run.row.label),
        ("seeds", seeds, lambda run: str(run.seed)),
    ):
        if wanted is None:
            continue
        known = {tables.slug(of(run)): of(run) for run in table.runs()}
        unknown = [value for value in wanted if tables.slug(value) not in known]
        if unknown or not wanted:
            raise UserError(
                f"--{kind} must be among {', '.join(known)}. Received: "
                f"{', '.join(map(repr, unknown)) or 'nothing'}"
            )
        wanted = {tables.slug(value) for value in wanted}
        runs = [run for run in runs if tables.slug(of(run)) in wanted]
    return runs


def jobs(runs, workdir: Path, program_flags: tuple[str, ...], seeds_together: bool) -> list:
    """Pairs of a job and its runs; see `sweep` for the arguments."""
    if not seeds_together:
        return [(_job(run, workdir, program_flags), [run]) for run in runs]
    groups = {}
    for run in runs:
        groups.setdefault((workdir / run.folder).parent, []).append(run)
    return [(_seeds_job(group, workdir, program_flags), group) for group in groups.values()]


def _job(run, workdir, program_flags):
    folder = workdir / run.folder
    return engines.Job(
        run.folder,
        [
            *(sys.executable, "-m", run.program),
            *command_line.to_flags(run.config),
            *program_flags,
            f"--workdir={folder}",
        ],
        folder,
    )


def _seeds_job(runs, workdir, program_flags):
    folder = (workdir / runs[0].folder).parent
    seeds = ",".join(str(run.seed) for run in runs)
    given = command_line.to_flags(runs[0].config)
    return engines.Job(
        f"{folder.relative_to(workdir)} seeds {seeds}",
        [
            *(sys.executable, "-m", "training.seeds", f"--seeds={seeds}"),
            *(flag for flag in given if not flag.startswith("--seed=")),
            *program_flags,
            f"--workdir={folder}",
        ],
        folder,
    )


class _Log:
    """Tells what ended, and writes the table now and then."""

    def __init__(self, table, name, workdir, results_dir, jobs):
        self.table, self.name = table, name
        self.workdir, self.results_dir = workdir, results_dir
        self.runs = {job.name: runs for job, runs in jobs}
        self.ended, self.failed = 0, []
        self.start = self.last_written = time.monotonic()

    def finished(self, job, exit_code):
        self.ended += 1
        passed = time.monotonic() - self.start
        left = passed / self.ended * (len(self.runs) - self.ended)
        place = f"[{self.ended}/{len(self.runs)}] {job.name}"
        found = [outcomes.read(run, self.workdir / run.folder) for run in self.runs[job.name]]
        if exit_code or None in found:
            self.failed.append(f"{job.name}: see {job.workdir / 'log.txt'}")
            print(f"{place}  FAILED with exit code {exit_code}: {_last_line(job)}", flush=True)
        else:
            values = ", ".join(self._value(outcome) for outcome in found)
            print(f"{place}  {values}  about {_duration(left)} left", flush=True)
        if time.monotonic() - self.last_written > WRITE_EVERY:
            try:
                self.write()
            except Exception as error:  # of whatever kind, the runs are worth more; see the end
                print(f"The table could not be written, the runs go on: {error!r}", flush=True)
            self.last_written = time.monotonic()

    def write(self):
        kept = outcomes.read_csv(self.results_dir, self.name)
        together = outcomes.merge(self.table, kept, _outcomes(self.table, self.workdir))
        if together:
            outcomes.write_csv(together, self.results_dir, self.name)
            learned.write(self.table, self.name, self.workdir, self.results_dir)
            fits.write(self.table, self.name, self.workdir, self.results_dir)
            pruned = isinstance(self.table.columns[0].config, PruningConfig)
            form = pruning_table if pruned else tabulate
            form.write(self.table, self.name, together, self.results_dir)

    def _value(self, outcome):
        if outcome.diverged:
            return "diverged"
        value = outcome.metrics[self.table.metric]
        return f"{value:.2%}" if self.table.unit == "%" else f"{value:.4g} {self.table.unit}"


@contextlib.contextmanager
def _alone(workdir):
    """Errors: a `UserError` if another process is in this block with the same folder."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(workdir / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another sweep works in {workdir}. Wait for it, or use another --workdir."
            ) from None
        yield


def _last_line(job):
    path = job.workdir / "log.txt"
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else "it printed nothing"


def _duration(seconds):
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def from_flags(values: flags.FlagValues) -> list[str]:
    """Runs the sweep that the flags ask for; returns what failed.

    Errors: a `UserError` before any training starts, for wrong flags and for missing data.
    """
    name = values.table
    if name is None:
        raise UserError(f"--table is needed: one of {', '.join(tables.names())}.")
    table = tables.load(name)
    results_dir = Path(values.results_dir or tables.FOLDER.parent / "results")
    workdir = Path(values.workdir or f"runs/{name}{'_quick' * values.quick}")
    tabulate.assert_packages()
    if isinstance(table, aggregate.Aggregate):
        aggregate.write(table, name, results_dir)
        print(f"The table is in {results_dir / name}.md, .csv and .png")
        return []
    if values.quick:
        table = tables.quick_form(table)
        if values.results_dir is None:
            results_dir = workdir  # numbers without a meaning do not go where the real ones are
    only = {kind: values[kind].value for kind in ("columns", "rows", "seeds")}
    runs = select(table, **only)
    if values.seeds_together:
        _assert_together(runs)
    engine = _engine(values, _check(runs, values))
    failed = sweep(
        table,
        name,
        workdir,
        results_dir,
        engine,
        only=only,
        program_flags=(f"--data_dir={Path(values.data_dir).expanduser().resolve()}",),
        seeds_together=values.seeds_together,
    )
    print(f"The table is in {results_dir / name}.md, .csv and .png")
    return failed


def main(argv):
    failed = from_flags(flags.FLAGS)
    if failed:
        print(f"{len(failed)} failed; the same command tries them again:", *failed, sep="\n  ")
        sys.exit(1)


def _engine(values, check):
    """What runs jobs; `check` is called before it returns, or by Ray on every machine."""
    local = {"jobs": values.jobs, "gpus": values.gpus}
    other = local if values.engine == "ray" else {"cores": values.cores}
    wrong = [f"--{name}" for name, value in other.items() if value is not None]
    if wrong:
        raise UserError(
            f"With --engine={values.engine} there is no {' and no '.join(wrong)}: a Ray cluster "
            "runs as many jobs as it has room for, each with --cores; this machine runs --jobs "
            "at once, which share its cores or --gpus."
        )
    if values.engine == "ray":
        from training import ray_engine

        return lambda jobs, finished: ray_engine.run(
            jobs, values.ray_address, finished, cpus=values.cores or 1, check=check
        )
    gpus = values.gpus
    if gpus is not None:
        if not all(gpu.isdecimal() for gpu in gpus):
            raise UserError(f"--gpus must be numbers, say 0,1. Received: {','.join(gpus)}")
        gpus = [int(gpu) for gpu in gpus]
    where = engines.slots(values.jobs, gpus)
    # The jobs have their own; this process, which reads data and draws, must not take a GPU.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    check()
    return lambda jobs, finished: engines.local(jobs, where, finished)


def _check(runs, values):
    """What sees, before anything is trained, that every data set is there.

    Errors: a `UserError` for an activation that cannot be made.
    """
    configs = [run.config for run in runs]
    for config in {repr((c.activation, c.activation_args)): c for c in configs}.values():
        networks.Unit(config.activation, **config.activation_args)
    names = sorted({run.config.dataset for run in runs if run.has_images})
    return functools.partial(
        datasets.assert_there, names, values.data_dir, values.download, values.quick
    )


def _assert_together(runs):
    backend, programs = keras.backend.backend(), {run.program for run in runs}
    if backend != "jax" or programs - {tables.PROGRAMS[ImageConfig]}:
        raise UserError(
            "--seeds_together trains image classifiers on JAX: KERAS_BACKEND=jax. "
            f"Received: {backend}, and {', '.join(sorted(programs))}"
        )


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    for define, *flag in (
        (flags.DEFINE_string, "table", None, f"the table: {', '.join(tables.names())}"),
        (flags.DEFINE_string, "workdir", None, "where the runs are (default: runs/TABLE)"),
        (flags.DEFINE_string, "results_dir", None, "for the table (default: training/results)"),
        (flags.DEFINE_list, "columns", None, "only these columns, by the names of their folders"),
        (flags.DEFINE_list, "rows", None, "only these rows, say relu,pau"),
        (flags.DEFINE_list, "seeds", None, "only these seeds, say 0,1"),
        (flags.DEFINE_integer, "jobs", None, "runs at once (default: one a GPU, or one a core)"),
        (flags.DEFINE_list, "gpus", None, "the GPUs to use, say 0,1 (default: all)"),
        (flags.DEFINE_bool, "seeds_together", False, "train a network's seeds in one step (JAX)"),
        (flags.DEFINE_enum, "engine", "local", ENGINES, "this machine, or a Ray cluster"),
        (flags.DEFINE_integer, "cores", None, "cores of each run on Ray (default: 1)"),
        (flags.DEFINE_string, "ray_address", "auto", "of the Ray cluster, say HOST:6379"),
        (flags.DEFINE_string, "data_dir", "~/tensorflow_datasets", "where data sets are kept"),
        (flags.DEFINE_bool, "download", False, "get the data sets that are not in data_dir"),
        (flags.DEFINE_bool, "quick", False, "two steps a run: shows that everything runs"),
    ):
        define(*flag, flag_values=values, module_name=sys.argv[0])


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
