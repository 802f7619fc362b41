"""What tensorflow_test.py asks of fresh processes.

    python -m tests.kernels.tensorflow_processes FOLDER

Prints a JSON dict: of every case "", or how it failed. TensorFlow is imported once and every case
runs in a fork of its own, which then imports keras_learnact: that is as good as a process of its
own, since nothing of TensorFlow has been started by then, and it takes a fifth of the time.
"""

import json
import os
import shutil
import sys
import traceback
import warnings
from pathlib import Path

import keras
import numpy as np

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

PACKAGE = Path(__file__).parents[2] / "keras_learnact"
X = np.random.default_rng(0).normal(size=(6, 8), scale=2).astype("float32")
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


@case
def a_saved_model_with_the_ops_is_loaded_after_the_import(folder):
    import keras_learnact  # noqa: F401 (makes the ops known)

    loaded = tf.saved_model.load(folder / "saved")
    expected = np.load(folder / "expected.npz")
    graph = loaded.call.get_concrete_function(tf.TensorSpec((None, 8))).graph.as_graph_def()
    nodes = [n.op for f in graph.library.function for n in f.node_def] + [n.op for n in graph.node]
    assert any(op.startswith("KerasLearnact>") for op in nodes), nodes
    outputs = loaded.call(expected["x"])
    assert set(outputs) | {"x"} == set(expected)
    for name, y in outputs.items():
        np.testing.assert_array_equal(y, expected[name], err_msg=name)
    x = tf.constant(expected["x"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = loaded.call(x)["PAU"]
    assert np.all(np.isfinite(tape.gradient(y, x)))


@case
def a_mirrored_strategy_on_two_devices_gives_the_gradients_of_one(folder):
    devices = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        devices[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    import keras_learnact as kla

    def trained(strategy):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            layers = [kla.PAU(sharing="channel"), keras.layers.Dense(1)]
            model = keras.Sequential([keras.Input((8,)), *layers])
            model.compile(keras.optimizers.SGD(0.1), "mse")
        assert layers[0].path == "kernel"
        model.fit(X, X[:, :1], batch_size=6, shuffle=False, verbose=0)
        return model.get_weights()

    one = trained(tf.distribute.OneDeviceStrategy("CPU:0"))
    two = trained(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # sums of 6 and of 3 + 3 terms


@case
def auto_clustering_takes_the_op_into_a_cluster(folder):
    os.environ["TF_XLA_FLAGS"] = (
        "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit --tf_xla_min_cluster_size=1"
    )
    from tensorflow.python.eager import context

    import keras_learnact as kla

    layer = kla.PAU()

    @tf.function
    def function(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.sin(layer(tf.exp(x) - 1))
        return y, tape.gradient(y, x)

    with kla.kernels.disabled():
        expected = tf.function(function.python_function)(tf.constant(X))
    context.enable_run_metadata()
    result = function(tf.constant(X))
    graphs = context.export_run_metadata().partition_graphs
    nodes = {node.op for graph in graphs for node in graph.node}
    assert "_XlaRun" in nodes, nodes
    assert not any(op.startswith("KerasLearnact>") for op in nodes), nodes
    for a, b in zip(result, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # float32, another order


@case
def threads_are_those_that_tensorflow_was_given(folder):
    tf.config.threading.set_intra_op_parallelism_threads(1)
    import keras_learnact as kla

    kla.PAU()(X)
    binding, _ = kla.kernels.load()
    assert binding.threads() == 1


@case
def what_is_set_after_the_status_was_asked_for_still_counts(folder):
    import keras_learnact as kla

    gpus = ["GPU:0"]  # as if there were one until the user hides it
    tf.config.get_visible_devices = lambda kind=None: list(gpus)
    layer = kla.APL()  # PAU fits its coefficients when it is made, which starts TensorFlow
    before, path = kla.kernels.report(), layer.path
    assert ", a GPU" in before, before
    gpus.clear()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    after = kla.kernels.report()
    assert ", no GPU" in after and ", 1 threads" in after, after
    layer(X)
    binding, _ = kla.kernels.load()
    assert binding.threads() == 1 and layer.path == "kernel", (path, layer.path)
    # From the first call on it is settled, as it is in TensorFlow.
    gpus.append("GPU:0")
    assert kla.kernels.report() == after


# Libraries that are gone, damaged or not what they should be.


def package(folder, name):
    """A copy of the package; its folder of libraries."""
    root = folder / name
    shutil.copytree(PACKAGE, root / "keras_learnact")
    sys.path.insert(0, str(root))
    return root / "keras_learnact" / "kernels" / "lib"


def run_without(library, *reasons, eager="kernel", graph):
    """Imports the package: there must be one warning, which gives the reasons, and right values."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import keras_learnact as kla

        layer = kla.PAU()
        paths = {}

        def function(x, place):
            paths[place] = layer.path
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x)
            return y, tape.gradient(y, x)

        x = tf.constant(X)
        results = {
            "eager": function(x, "eager"),
            "graph": tf.function(function)(x, "graph"),
            "compiled": tf.function(function, jit_compile=True)(x, "compiled"),
        }
        with kla.kernels.disabled():
            expected = function(x, "")
    messages = [str(w.message) for w in caught if "keras_learnact" in str(w.message)]
    assert len(messages) == 1, messages
    report = kla.kernels.report()
    for reason in (f"libkeras_learnact_{library}.so", *reasons):
        assert reason in messages[0] and reason in report, (messages, report)
    assert paths["eager"].startswith(eager) and paths["graph"] == paths["compiled"], paths
    assert paths["graph"].startswith(graph), paths
    for result in results.values():
        for a, b in zip(result, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # float32, another order
    return report


def damaged(lib, library, how):
    file = lib / f"libkeras_learnact_{library}.so"
    content = file.read_bytes()
    if how == "gone":
        file.unlink()
    elif how == "cut":
        file.write_bytes(content[: len(content) // 3])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "flipped":
        middle = len(content) // 2
        flipped = bytes(255 - byte for byte in content[middle : middle + 64])
        file.write_bytes(content[:middle] + flipped + content[middle + 64 :])
    elif how == "another":
        shutil.copyfile(lib / f"libkeras_learnact_{'xla' if library == 'tf' else 'tf'}.so", file)
        (lib / "checksums.json").unlink()


REASONS = {
    "gone": "not there any more",
    "cut": "cut short",
    "empty": "no shared library",
    "flipped": "checksum",
    "another": "another library",
}


def case_of_damage(library, how, **paths):
    def run(folder):
        damaged(package(folder, f"{library}_{how}"), library, how)
        run_without(library, REASONS[how], **paths)

    CASES[f"the_library_{library}_is_{how}"] = run


for how in REASONS:
    case_of_damage("tf", how, eager="reference", graph="reference")
for how in ("gone", "flipped"):
    case_of_damage("xla", how, graph="reference")
for how in ("gone", "another"):
    case_of_damage("tf_native", how, graph="kernel")


@case
def the_library_tf_native_is_for_another_tensorflow(folder):
    lib = package(folder, "another_tensorflow")
    file = lib / "libkeras_learnact_tf_native.so"
    version = tf.__version__.encode()
    content = file.read_bytes()
    assert content.count(b"keras_learnact for TensorFlow " + version) == 1
    other = version.replace(version[:3], b"9.8")
    # What a file for that version would do once it is loaded, is not seen: it must not be loaded.
    file.write_bytes(content.replace(b"for TensorFlow " + version, b"for TensorFlow " + other))
    (lib / "checksums.json").unlink()
    report = run_without("tf_native", f"for TensorFlow {other.decode()}", graph="kernel")
    assert "graphs, compiled by XLA or not: XLA's handler, through StableHLO" in report


@case
def nothing_is_built(folder):
    lib = package(folder, "nothing")
    shutil.rmtree(lib)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import keras_learnact as kla

        layer = kla.PAU()
        assert "is not built" in layer.path and "is not built" in kla.kernels.report()
        assert np.all(np.isfinite(layer(X)))


def main():
    folder, results = Path(sys.argv[1]), {}
    for name, function in CASES.items():
        report = folder / f"{name}.txt"
        child = os.fork()
        if not child:
            try:
                function(folder)
                report.write_text("")
            except BaseException:
                report.write_text(traceback.format_exc())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        results[name] = report.read_text() if report.exists() else f"the process ended: {status}"
    print(json.dumps(results))


if __name__ == "__main__":
    main()
