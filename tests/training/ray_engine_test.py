"""Two nodes of a Ray cluster, here on one machine, share the jobs of a sweep."""

import functools
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from training import datasets, ray_engine
from training.config import UserError
from training.engines import Job

pytestmark = pytest.mark.once

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}

# Counts to 40 in four seconds, and goes on where it was killed.
COUNTER = """
import os, sys, time
from pathlib import Path

workdir = Path(sys.argv[1].removeprefix("--workdir="))
checkpoint, beside = workdir / "checkpoint.npz", workdir / ".checkpoint.npz"
start = int(checkpoint.read_text()) if checkpoint.exists() else 0
print("process", os.getpid(), "goes on after", start, flush=True)
for number in range(start + 1, 41):
    time.sleep(0.1)
    beside.write_text(str(number))
    beside.replace(checkpoint)
(workdir / "result.json").write_text("{}")
"""


@pytest.fixture(scope="module")
def cluster():
    """A head node with one core."""
    pytest.importorskip("ray", reason="Ray, the extra `sweep`, is not installed")
    from ray.cluster_utils import Cluster

    # Not pytest's folder: with a session's name a path would be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="ray") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        # Ray's workers are nice, and would wait for the tests that run beside this one.
        patch.setenv("RAY_worker_niceness", "0")
        # A node that answers late, on a busy machine, is not dead; one that has gone refuses.
        patch.setenv("RAY_health_check_timeout_ms", "60000")
        Path(folder, "ray").mkdir()  # Cluster takes for granted that it exists
        cluster = Cluster(initialize_head=True, head_node_args=NODE)
        try:
            yield cluster
        finally:
            cluster.shutdown()


@pytest.fixture
def second(cluster):
    """A second node of the cluster; a test may remove it."""
    node = cluster.add_node(**NODE)
    yield node
    if node in cluster.worker_nodes:
        cluster.remove_node(node)


def job(folder, *command):
    return Job(folder.name, [sys.executable, *command, f"--workdir={folder}"], folder)


def run(jobs, cluster, **options):
    """The exit code of each job."""
    codes = {}
    ray_engine.run(
        jobs, cluster.address, lambda job, code: codes.update({job.name: code}), **options
    )
    return codes


def places(job):
    """Where it ran, one for each start: (the first letters of the node's id, the folder)."""
    path = job.workdir / "log.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [line.partition("(node ")[2] for line in lines if line.startswith("On ")]
    return [(place[:8], Path(place.partition(" in ")[2])) for place in found]


def test_two_machines_share_the_trainings_and_leave_their_results(cluster, second, tmp_path):
    program = ("-m", "training.image_classification", "--quick", "--network=mlp")
    flags = ("--activation=relu", "--seed=0"), ("--activation=relu", "--seed=1")
    jobs = [job(tmp_path / flag[1], *program, *flag) for flag in flags]
    assert set(run(jobs, cluster).values()) == {0}
    nodes = {cluster.head_node.node_id[:8], second.node_id[:8]}
    assert {node for job in jobs for node, _ in places(job)} == nodes
    for seed, each in enumerate(jobs):
        assert [folder for _, folder in places(each)] == [each.workdir]  # nothing was copied
        result = json.loads((each.workdir / "result.json").read_text())
        assert result["config"]["seed"] == seed
        assert (each.workdir / "model.keras").exists()


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "not shared"])
def test_a_job_that_loses_its_machine_goes_on_on_another(
    shared, cluster, second, tmp_path, monkeypatch
):
    if not shared:
        # Both nodes see the folder of the test. Without the mark in it they take it for another.
        monkeypatch.setattr(ray_engine, "_marked", lambda jobs: (tmp_path / "none", "mark"))
        monkeypatch.setattr(ray_engine, "FETCH_EVERY", 0)
    jobs = [job(tmp_path / name, "-c", COUNTER) for name in ("a", "b")]
    lost, ended = [], threading.Event()

    def lose():
        while not ended.wait(0.1):
            here = [job for job in jobs if places(job) and places(job)[0][0] == second.node_id[:8]]
            if here and (here[0].workdir / "checkpoint.npz").exists():
                lost.extend(here)
                cluster.remove_node(second, allow_graceful=False)
                return

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        codes = run(jobs, cluster)
    finally:
        ended.set()
        thread.join()

    assert codes == {"a": 0, "b": 0}
    for each in jobs:
        assert (each.workdir / "checkpoint.npz").read_text() == "40"
        assert (each.workdir / "result.json").exists()
        assert all((folder == each.workdir) is shared for _, folder in places(each))
    (lost,) = lost
    assert [node for node, _ in places(lost)] == [
        second.node_id[:8],
        cluster.head_node.node_id[:8],
    ]
    starts = [
        line.split()
        for line in (lost.workdir / "log.txt").read_text().splitlines()
        if line.startswith("process")
    ]
    first, then = [(int(words[1]), int(words[-1])) for words in starts]
    assert first[1] == 0 and then[1] > 0  # from its checkpoint
    if sys.platform == "linux":  # the process went with its node; a zombie has no command line
        command = Path(f"/proc/{first[0]}/cmdline")
        assert not command.exists() or not command.read_bytes()


def test_a_machine_that_is_lost_while_it_is_looked_at_is_left_out(cluster, tmp_path, monkeypatch):
    """A node that went without a word counts as alive until a check of its health fails."""
    import ray

    gone = cluster.add_node(**NODE)
    nodes = ray_engine._able

    def lose(machines, *needs):
        cluster.remove_node(gone, allow_graceful=False)
        able = nodes(machines, *needs)
        assert gone.node_id in {node["NodeID"] for node in able}
        return able

    monkeypatch.setattr(ray_engine, "_able", lose)
    good = job(tmp_path / "good", "-c", "print('done')")
    assert run([good], cluster) == {"good": 0}
    assert places(good)[0][0] == cluster.head_node.node_id[:8]
    assert not ray.is_initialized()


def test_a_job_that_fails_is_not_started_again(cluster, tmp_path):
    bad = job(tmp_path / "bad", "-c", "raise SystemExit('it is broken')")
    assert run([bad], cluster) == {"bad": 1}
    log = (bad.workdir / "log.txt").read_text().splitlines()
    assert log[0].startswith("On ") and log[1:] == ["it is broken"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cpus": 2}, r"2 cores and 0 GPUs. The cluster has: .*1 cores, 0 GPUs"),
        ({"gpus": 0.5}, r"1 cores and 0.5 GPUs. The cluster has: .*1 cores, 0 GPUs"),
        (
            {"check": functools.partial(datasets.load_images, "mnist", "/nonexistent")},
            r"(?s)Not every machine.*\(node \w{8}, 1 cores, 0 GPUs\): .*mnist",
        ),
    ],
    ids=["cores", "GPUs", "data"],
)
def test_what_the_machines_lack_is_said_before_any_job(options, message, cluster, tmp_path):
    never = job(tmp_path / "never", "-c", COUNTER)
    with pytest.raises(UserError, match=message):
        run([never], cluster, **options)
    assert not never.workdir.exists()


def test_a_cluster_of_another_version_is_refused(cluster, tmp_path):
    from ray._raylet import GcsClient

    client, key, namespace = GcsClient(address=cluster.address), b"CLUSTER_METADATA", b"cluster"
    real = client.internal_kv_get(key, namespace)
    other = json.dumps({**json.loads(real), "ray_version": "1.0.0"}).encode()
    client.internal_kv_put(key, other, True, namespace)
    try:
        with pytest.raises(UserError, match="(?s)Version mismatch.*1.0.0"):
            run([job(tmp_path / "never", "-c", COUNTER)], cluster)
    finally:
        client.internal_kv_put(key, real, True, namespace)


def test_an_address_without_a_cluster_is_refused_in_bounded_time(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray, the extra `sweep`, is not installed")
    monkeypatch.setattr(ray_engine, "ANSWER_WITHIN", 2)
    jobs = [job(tmp_path / "never", "-c", COUNTER)]
    start = time.monotonic()
    with pytest.raises(UserError, match="must be a Ray cluster.*127.0.0.1:1.*within 2 seconds"):
        ray_engine.run(jobs, "127.0.0.1:1", print)
    assert time.monotonic() - start < 60  # Ray itself would wait for ever
    with pytest.raises(UserError, match="must be HOST:PORT.*ray://"):
        ray_engine.run(jobs, "ray://127.0.0.1:1", print)


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'keras_learnact\[sweep\]'"):
        ray_engine.run([job(tmp_path / "never", "-c", COUNTER)], "auto", print)
