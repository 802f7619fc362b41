import os
import signal
import subprocess
import sys
import time

import pytest

from training import engines, launch
from training.config import UserError


def job(tmp_path, name, code):
    return engines.Job(name, [sys.executable, "-c", code], tmp_path / name)


def run(jobs, slots=None):
    codes = {}
    engines.local(jobs, slots or [engines.Slot()], lambda job, code: codes.update({job.name: code}))
    return codes


def test_a_job_that_fails_does_not_stop_the_others_and_its_words_are_kept(tmp_path):
    jobs = [
        job(tmp_path, "bad", "raise SystemExit('it is broken')"),
        job(tmp_path, "good", "print('fine')"),
    ]
    assert run(jobs) == {"bad": 1, "good": 0}
    assert (tmp_path / "bad" / "log.txt").read_text() == "it is broken\n"
    assert (tmp_path / "good" / "log.txt").read_text() == "fine\n"


def test_a_second_try_is_written_behind_the_first(tmp_path):
    for _ in range(2):
        run([job(tmp_path, "job", "print('tried')")])
    assert (tmp_path / "job" / "log.txt").read_text() == "tried\n" * 2


def test_there_is_one_job_at_a_time_in_each_slot(tmp_path):
    # Each waits for the file of the other: they end only if both run at once.
    meet = (
        "import pathlib, time; me, other = {0!r}, {1!r}; pathlib.Path(me).touch()\n"
        "for _ in range(600):\n  time.sleep(0.05)\n"
        "  if pathlib.Path(other).exists(): raise SystemExit(0)\nraise SystemExit(1)"
    )
    a, b = str(tmp_path / "a_is_here"), str(tmp_path / "b_is_here")
    jobs = [job(tmp_path, "a", meet.format(a, b)), job(tmp_path, "b", meet.format(b, a))]
    assert run(jobs, [engines.Slot(), engines.Slot()]) == {"a": 0, "b": 0}
    alone = "import os, sys, time; os.mkdir({0!r}); time.sleep(0.3); os.rmdir({0!r})"
    folder = str(tmp_path / "taken")
    jobs = [job(tmp_path, f"alone{i}", alone.format(folder)) for i in range(2)]
    assert run(jobs, [engines.Slot()]) == {"alone0": 0, "alone1": 0}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processes have no cores here")
def test_without_gpus_every_core_is_a_slot_and_hides_gpus(tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    slots = engines.slots(None, [])
    assert [sorted(slot.cores) for slot in slots] == [[core] for core in cores]
    (one,) = engines.slots(1, [])
    assert sorted(one.cores) == cores
    code = "import os; print(sorted(os.sched_getaffinity(0)), [os.environ['CUDA_VISIBLE_DEVICES']])"
    run([job(tmp_path, "job", code)], slots[-1:])
    assert (tmp_path / "job" / "log.txt").read_text() == f"[{cores[-1]}] ['']\n"


def test_gpus_are_dealt_in_turn_and_shared_only_when_asked(monkeypatch):
    monkeypatch.setattr(engines, "visible_gpus", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    given = [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in engines.slots(None, None)]
    assert given == ["0", "1", "2"]
    shared = engines.slots(4, [0, 2])
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in shared] == ["0", "2", "0", "2"]
    assert shared[0].environment["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in engines.slots(2, [0, 2])[0].environment
    # Where this process sees only some, the backend counts those.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6,7")
    assert engines.slots(None, [1])[0].environment["CUDA_VISIBLE_DEVICES"] == "6"


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(engines, "visible_gpus", lambda: 1)
    with pytest.raises(UserError, match=r"among the 1 .* \(0 to 0\)\. Received: \[0, 4\]"):
        engines.slots(None, [0, 4])
    with pytest.raises(UserError, match="--jobs must be 1 or more. Received: 0"):
        engines.slots(0, [])


def test_the_backend_is_asked_for_its_gpus():
    import keras

    assert engines.visible_gpus() == len(
        [d for d in keras.distribution.list_devices() if d.lower().startswith("gpu")]
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
def test_no_job_outlives_a_sweep_that_was_killed(tmp_path):
    program = (
        "import pathlib, sys\n"
        "from training import engines\n"
        "code = 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'\n"
        f"job = engines.Job('job', [sys.executable, '-c', code], pathlib.Path({str(tmp_path)!r}))\n"
        "engines.local([job], [engines.Slot()], print)\n"
    )
    sweep = subprocess.Popen([sys.executable, "-c", program], cwd=engines.REPOSITORY)
    log = tmp_path / "log.txt"
    _wait(lambda: log.exists() and log.read_text().endswith("\n"))
    child = int(log.read_text())
    assert _alive(child)
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    _wait(lambda: not _alive(child))


def test_a_job_whose_sweep_is_killed_while_it_starts_does_not_run():
    # Its parent is not the process that wanted it: that has died before it could be told.
    no_parent = str(os.getpid() + 1)
    command = [
        sys.executable,
        launch.__file__,
        no_parent,
        "",
        sys.executable,
        "-c",
        "print('runs')",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")


def _wait(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
