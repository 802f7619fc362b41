"""Runs the jobs of a sweep on the machines of a Ray cluster, each wherever one is free.

    ray start --head                    # on one machine; says its HOST:PORT
    ray start --address=HOST:PORT       # on every other
    python -m training.sweep --table=NAME --engine=ray --ray_address=HOST:PORT    # on any of them

Every machine has the same versions of Python, Ray and keras_learnact
(`pip install 'keras_learnact[tensorflow,training,sweep]'`, or jax), and the data sets in the same
`--data_dir`. The programs of `training` travel there with the sweep.

A job works in its workdir where its machine shares that with the sweep's, say through NFS.
Elsewhere it works in a temporary folder, whose files come here while it runs. Either way a job
whose machine is lost goes on on another, from its last checkpoint.

These are plain tasks of Ray, not trials of Ray Tune: nothing is searched for, the programs keep
their own checkpoints, and Tune would need a file system that all machines share.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from training import engines
from training.config import UserError
from training.engines import Finished, Job

# Seconds in which a cluster must answer: Ray itself waits for ever where there is none.
ANSWER_WITHIN = 30
# Seconds between two looks for files that a job has written on another file system.
FETCH_EVERY = 10
# How often a job may lose its machine. It could be the job that brings it down.
ATTEMPTS = 5
# In the first folder above all workdirs: tells other machines that they see that same folder.
MARKER = ".ray_sweep"
# Files which say that those written before them are there, the strongest first.
COMPLETING = ("result.json", "checkpoint.npz")
# Runs of one table must not differ in these packages.
SAME_VERSION = ("keras_learnact", "keras")
# What of this process's environment decides what a job computes, or says, wherever it runs.
PASSED_ON = ("KERAS_LEARNACT_KERNELS", "TF_CPP_MIN_LOG_LEVEL")

TRY_TO_CONNECT = """
import sys, ray
try:
    ray.init(sys.argv[1], logging_level="ERROR", log_to_driver=False)
except Exception as error:
    print(error)
    sys.exit(1)
"""


def run(
    jobs: Iterable[Job],
    address: str,
    finished: Finished,
    *,
    cpus: int = 1,
    gpus: float | None = None,
    check: Callable[[], object] | None = None,
) -> None:
    """Runs every job on the cluster; `finished` gets each with its exit code.

    A job that fails does not stop the others, and no job outlives this process.

    Args:
        jobs: see `training.engines`. Their first word is this Python; there it is that one's.
        address: "HOST:PORT" of the cluster, to which this machine belongs; "auto": the one that
            was started here.
        finished: called in this process.
        cpus: cores for each job.
        gpus: GPUs for each job; a fraction shares one. None: one where the cluster has any.
        check: called on every machine before any job, say to see that a data set is there. It
            must come from a module of `training`.

    Errors: a `UserError`, before any job runs: Ray is not installed, no cluster answers, it has
    other versions, no machine has so many cores or GPUs, or `check` fails on one.
    """
    jobs = list(jobs)
    if not jobs:
        return
    with _connected(address) as ray:
        machines = [node for node in ray.nodes() if node["Alive"]]
        if gpus is None:
            gpus = min(1, max(node["Resources"].get("GPU", 0) for node in machines))
        able = _ready(ray, _able(machines, cpus, gpus), check)
        print(f"Ray runs {len(jobs)} jobs on {', '.join(map(_name, able))}", flush=True)
        task = ray.remote(
            num_returns="streaming",
            num_cpus=cpus,
            num_gpus=gpus,
            max_retries=0,  # Ray would repeat it with the files of its first start
            scheduling_strategy="SPREAD",  # over the machines, not the cores of the first
        )(_work)
        place = *_marked(jobs), cpus, gpus, FETCH_EVERY
        _run_all(ray, jobs, lambda job, files: task.remote(job, files, *place), finished)


def _run_all(ray, jobs, start, finished):
    """Starts every job, starts it again where its machine is lost, and brings its files here."""
    running = {start(job, _changed(job.workdir, {})): (job, 1) for job in jobs}
    while running:
        (stream,), _ = ray.wait(list(running), num_returns=1)
        job, attempt = running[stream]
        try:
            files, exit_code = ray.get(next(stream))
            _write(job.workdir, files)
        except ray.exceptions.RayTaskError as error:
            _note(job.workdir, f"Ray could not run it: {error}")
            exit_code = 1
        except ray.exceptions.RayError as error:
            _note(job.workdir, f"Lost in attempt {attempt} of {ATTEMPTS}: {_first_line(error)}")
            exit_code = 1 if attempt == ATTEMPTS else None
            if exit_code is None:
                print(f"{job.name} lost its machine and starts again", flush=True)
                del running[stream]
                running[start(job, _changed(job.workdir, {}))] = job, attempt + 1
        if exit_code is not None:
            del running[stream]
            finished(job, exit_code)


def _work(job, files, marker, token, cpus, gpus, fetch_every):
    """On a machine of the cluster: runs a job.

    Yields:
        Pairs: the files that changed on a file system of this machine alone, and the exit code,
        None while the job runs.
    """
    with contextlib.ExitStack() as stack:
        shared, sent = _read(marker) == token, {}
        if shared:
            workdir = job.workdir
        else:
            temporary = tempfile.TemporaryDirectory(prefix="sweep_", ignore_cleanup_errors=True)
            workdir = Path(stack.enter_context(temporary))
            _write(workdir, files)
            _changed(workdir, sent)  # that is known: only what the job changes has to travel
        command = [part.replace(str(job.workdir), str(workdir)) for part in job.command[1:]]
        here = Job(job.name, [sys.executable, *command], workdir)
        _note(workdir, f"On {_here()}, in {workdir}")
        process = engines.start(here, _slot(cpus, gpus))
        stack.callback(process.wait)
        stack.callback(process.kill)
        last = time.monotonic()
        while process.poll() is None:
            time.sleep(engines.PAUSE)
            if not shared and time.monotonic() - last > fetch_every:
                yield _changed(workdir, sent), None
                last = time.monotonic()
        files = {} if shared else _changed(workdir, sent)
    # After the cleaning: with the last pair Ray may end this process.
    yield files, process.returncode


def _slot(cpus, gpus):
    """The number of threads; Ray itself names the GPUs, but hides none from who asks for none."""
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "KERAS_LEARNACT_NUM_THREADS")
    environment = {name: str(cpus) for name in (*names, "NPROC")}  # NPROC: of JAX
    if not gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    elif gpus < 1:
        environment |= engines.SHARED_GPU
    return engines.Slot(environment)


@contextlib.contextmanager
def _connected(address):
    """Ray, connected to a cluster; the machines get the package `training`."""
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"A sweep over machines needs Ray: pip install 'keras_learnact[sweep]'. {error}"
        ) from error
    import keras

    _assert_answers(address)
    ray.init(
        address,
        runtime_env={
            "py_modules": [str(Path(__file__).parent)],
            "excludes": ["results/"],
            "env_vars": {
                **{name: value for name, value in os.environ.items() if name in PASSED_ON},
                "KERAS_BACKEND": keras.backend.backend(),
            },
        },
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        yield ray
    finally:
        ray.shutdown()


def _assert_answers(address):
    """Errors: a `UserError` if one cannot connect to a cluster. Tried in a process of its own."""
    help = "`ray start --head` starts a cluster, `ray start --address=HOST:PORT` adds a machine."
    if "://" in address:
        raise UserError(
            f"--ray_address must be HOST:PORT, on a machine of the cluster. Received: {address}. "
            + help
        )
    command = [sys.executable, "-c", TRY_TO_CONNECT, address]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=ANSWER_WITHIN, check=False)
        said = answer.stdout or answer.stderr
        connected = answer.returncode == 0
    except subprocess.TimeoutExpired as error:
        said, connected = error.stderr, False
    if not connected:
        said = (said or b"").decode(errors="replace").strip()
        raise UserError(
            f"There must be a Ray cluster at --ray_address. Received: {address}, which gave no "
            f"connection within {ANSWER_WITHIN} seconds. {help}\n{said}"
        )


def _able(machines, cpus, gpus):
    """The machines that have what a job needs, busy or not."""
    able = [
        node
        for node in machines
        if node["Resources"].get("CPU", 0) >= cpus and node["Resources"].get("GPU", 0) >= gpus
    ]
    if not able:
        raise UserError(
            f"A job needs a machine with {cpus} cores and {gpus:g} GPUs. The cluster has: "
            + ", ".join(map(_name, machines))
        )
    return able


def _ready(ray, machines, check):
    """The machines without those that the cluster has lost by now.

    Errors: a `UserError` that names each machine on which jobs would fail.
    """
    # A process that has read a data set ends, and its memory with it.
    look = ray.remote(num_cpus=0, max_calls=1)(_look)
    on = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    versions = {name: importlib.metadata.version(name) for name in SAME_VERSION}
    tasks = [
        look.options(scheduling_strategy=on(node["NodeID"], soft=False)).remote(
            versions, check and ray.cloudpickle.dumps(check)
        )
        for node in machines
    ]
    ready, wrong = [], []
    for node, task in zip(machines, tasks, strict=True):
        try:
            reason = ray.get(task)
        except ray.exceptions.RayError as error:
            # The cluster counts a machine for some seconds after it has gone.
            if node["NodeID"] not in {n["NodeID"] for n in ray.nodes() if n["Alive"]}:
                continue
            reason = str(error)
        if reason:
            wrong.append(f"{_name(node)}: {reason}")
        else:
            ready.append(node)
    if wrong or not ready:
        wrong = wrong or ["All were lost while they were looked at."]
        raise UserError("\n".join(["Not every machine of the cluster can run the jobs.", *wrong]))
    return ready


def _look(versions, check):
    """On a machine of the cluster: why it cannot run jobs; None if it can."""
    try:
        for name, version in versions.items():
            there = importlib.metadata.version(name)
            if there != version:
                return f"It has {name} {there}, and the machine of the sweep {version}."
        backend = os.environ["KERAS_BACKEND"]
        if not importlib.util.find_spec(backend):
            return f"It has no {backend}, the backend of Keras in this sweep."
        if check:
            pickle.loads(check)()  # here, so that a package it misses is a reason like others
    except UserError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _marked(jobs):
    """A file above all workdirs, and what is in it: who reads the same shares the folder."""
    marker = Path(os.path.commonpath([job.workdir for job in jobs])) / MARKER
    token = uuid.uuid4().hex
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(token)
    return marker, token


def _read(path):
    try:
        return path.read_text()
    except OSError:
        return None


def _changed(folder, known):
    """The files of a folder, name to bytes, that are not as they were when `known` was last given.

    A file that says that others are there is read before them.
    """
    rank = {name: i for i, name in enumerate(COMPLETING)}
    paths = sorted(folder.rglob("*"), key=lambda path: rank.get(path.name, len(rank)))
    found = {}
    for path in paths:
        if path.name.startswith("."):  # being written, or for this machine alone
            continue
        with contextlib.suppress(FileNotFoundError):  # replaced since it was listed
            stat = path.stat()
            if path.is_file() and known.get(path) != (state := (stat.st_mtime_ns, stat.st_size)):
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
                known[path] = state
    return found


def _write(folder, files):
    """Writes what `_changed` found, in the other order."""
    if not files:
        return
    # It brings Keras with it, which a worker that only waits for a job can do without.
    from keras_learnact.files import written

    for name, content in reversed(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with written(path) as file:
            file.write(content)


def _note(workdir, line):
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / "log.txt", "a") as log:
        print(line, file=log)


def _name(node):
    resources = node["Resources"]
    return (
        f"{node['NodeManagerHostname']} (node {node['NodeID'][:8]}, "
        f"{resources.get('CPU', 0):g} cores, {resources.get('GPU', 0):g} GPUs)"
    )


def _here():
    import ray

    return f"{socket.gethostname()} (node {ray.get_runtime_context().get_node_id()[:8]})"


def _first_line(error):
    return str(error).strip().splitlines()[0]
