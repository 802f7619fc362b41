"""Runs the jobs of a sweep as processes of their own, on the cores and GPUs of this machine."""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from training import launch
from training.config import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
# Seconds between two looks at the running processes.
PAUSE = 0.2
# For a process that does not have a GPU for itself.
SHARED_GPU = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "1"}


@dataclasses.dataclass(frozen=True)
class Job:
    """A command, and the folder where it leaves its result.

    Args:
        name: for people.
        command: the program with its arguments; it goes on where it was killed.
        workdir: an absolute path; `log.txt` in it gets what the command prints.
    """

    name: str
    command: list[str]
    workdir: Path


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where one job at a time runs.

    Args:
        environment: what its process has beside the environment of this one.
        cores: the numbers of the processor's cores that it may use; None: all.
    """

    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    cores: frozenset[int] | None = None


Finished = Callable[[Job, int], None]


def slots(jobs: int | None, gpus: list[int] | None) -> list[Slot]:
    """One slot for each GPU, or else for each core; `jobs` asks for another number of them.

    Args:
        jobs: how many at once. GPUs are dealt in turn, so that several jobs may share one.
        gpus: the numbers of the GPUs to use; None: all that the backend of Keras sees; []: none.

    Errors: a `UserError` for a GPU that is not there.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs must be 1 or more. Received: {jobs}")
    seen = visible_gpus() if gpus is None or gpus else 0
    missing = [gpu for gpu in gpus or [] if not 0 <= gpu < seen]
    if missing:
        raise UserError(
            f"--gpus must be among the {seen} that {_backend()} sees here"
            f"{f' (0 to {seen - 1})' if seen else ''}. Received: {gpus}. Leave --gpus out to use "
            "what there is."
        )
    gpus = list(range(seen)) if gpus is None else gpus
    if gpus:
        return [_gpu_slot(gpus[i % len(gpus)], len(gpus), jobs) for i in range(jobs or len(gpus))]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    count = jobs or (len(cores) if cores else os.cpu_count() or 1)
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    if not cores:  # a system that cannot tie a process to cores
        return [Slot(hidden)] * count
    return [Slot(hidden, frozenset(_share(cores, i, count))) for i in range(count)]


def local(jobs: Iterable[Job], slots: list[Slot], finished: Finished) -> None:
    """Runs every job, one in each slot at a time; `finished` gets each with its exit code.

    A job that fails does not stop the others. No process outlives this one, however it ends.
    """
    waiting, running = list(jobs), {}
    try:
        while waiting or running:
            for number, slot in enumerate(slots):
                if waiting and number not in running:
                    job = waiting.pop(0)
                    running[number] = job, start(job, slot)
            time.sleep(PAUSE)
            for number, (job, process) in list(running.items()):
                if process.poll() is not None:
                    del running[number]
                    finished(job, process.returncode)
    finally:
        for _, process in running.values():
            process.kill()
            process.wait()


def visible_gpus() -> int:
    """How many GPUs the backend of Keras sees. Asked in a process of its own: this one would keep
    part of their memory."""
    # All devices, not those of type "gpu": where there are none JAX calls that an error.
    code = (
        "import keras; print('gpus', str(keras.distribution.list_devices()).lower().count('gpu:'))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise UserError(f"Keras with {_backend()} does not start:\n{answer.stderr.strip()}")
    return int(answer.stdout.split()[-1])


def start(job: Job, slot: Slot) -> subprocess.Popen:
    """The process of a job. On Linux it ends with this one, even if that is killed."""
    cores = ",".join(map(str, sorted(slot.cores or ())))
    job.workdir.mkdir(parents=True, exist_ok=True)
    with open(job.workdir / "log.txt", "ab") as log:
        return subprocess.Popen(
            [sys.executable, launch.__file__, str(os.getpid()), cores, *job.command],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=REPOSITORY,
            env={**os.environ, **slot.environment},
        )


def _gpu_slot(gpu, gpus, jobs):
    # Where this process sees only some of the GPUs, the backend numbers those.
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    environment = {"CUDA_VISIBLE_DEVICES": seen.split(",")[gpu] if seen else str(gpu)}
    if jobs and jobs > gpus:  # it is shared: nobody may take all of its memory
        environment |= SHARED_GPU
    return Slot(environment)


def _share(cores, number, count):
    """The cores of one slot: neighbours, all different as long as there are enough."""
    if count >= len(cores):
        return [cores[number % len(cores)]]
    return cores[number * len(cores) // count : (number + 1) * len(cores) // count]


def _backend():
    return os.environ.get("KERAS_BACKEND", "tensorflow")
