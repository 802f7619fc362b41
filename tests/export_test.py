"""Exports: of plain operations alone, whoever traces them; whole files or none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import keras_learnact as kla
from keras_learnact import kernels, numerics
from keras_learnact.export import export_saved_model
from keras_learnact.layers.pau import rational
from tests import export_processes as processes

ROOT = Path(__file__).parents[1]
X = np.random.default_rng(0).normal(size=(6, 8), scale=2).astype("float32")


def trained(activation):
    layers = [keras.layers.Dense(4), activation, keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile("adam", "mse", jit_compile=False)
    model.fit(X, X[:, :2], verbose=0)
    return model


@pytest.fixture(scope="module")
def model():
    """Trained, with kernels where there are any."""
    return trained(kla.PAU())


def operations(folder):
    """The names of all operations in a SavedModel."""
    from tensorflow.core.protobuf import saved_model_pb2

    written = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graph = written.meta_graphs[0].graph_def
    return {n.op for n in [*graph.node, *(n for f in graph.library.function for n in f.node_def)]}


def assert_plain(folder):
    names = operations(folder)
    # No operation on bits: LiteRT's and ONNX's converters have none.
    assert "Mul" in names
    assert not [n for n in names if n.startswith(("KerasLearnact", "Bit", "RightShift"))], names


# Other processes, which do not have this package.


def process(role, folder, backend):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-m", "tests.export_processes", role, str(folder)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    writing = [process("write", folder, backend) for backend in ("tensorflow", "jax")]
    said = [writer.communicate() for writer in writing]
    for writer, (_, errors) in zip(writing, said, strict=True):
        assert writer.returncode == 0, errors
    serving = process("serve", folder, "tensorflow")
    output, errors = serving.communicate()
    assert serving.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


@pytest.mark.tensorflow
@pytest.mark.parametrize("case", processes.CASES)
def test_it_serves_without_this_package(case, served):
    assert not served[case], served[case]


# Who traces, and when.


@pytest.mark.tensorflow
def test_tensorflows_own_save_traces_plain_operations_in_the_scope(model, tmp_path):
    import tensorflow as tf

    assert model.layers[1].path == "kernel"
    with kernels.portable():
        tf.saved_model.save(model, tmp_path)
    assert_plain(tmp_path)


@pytest.mark.tensorflow
def test_an_endpoint_is_traced_as_plain_operations_by_whoever_calls_it_first(model, tmp_path):
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    of_model = archive.track_and_add_endpoint("model", model, [tf.TensorSpec((None, 8))])

    @tf.function(input_signature=[tf.TensorSpec((None, 8))])
    def of_pixels(pixels):
        return of_model(pixels / 255)

    of_pixels(X)
    archive.add_endpoint("serve", of_pixels)
    archive.write_out(tmp_path, verbose=False)
    assert_plain(tmp_path)


class Nested(keras.layers.Layer):
    """Calls an activation in a `tf.function` in a `tf.function`."""

    def __init__(self):
        import tensorflow as tf

        super().__init__()
        self.activation = kla.PAU()
        self.inner = tf.function(lambda x: self.activation(x))
        self.outer = tf.function(lambda x: self.inner(x))

    def call(self, x):
        return self.outer(x)


class Subclassed(keras.Model):
    """Its `call` knows nothing of training."""

    def __init__(self, layers):
        super().__init__()
        self.inside = keras.Sequential(layers)

    def call(self, x):
        return self.inside(x)


@pytest.mark.tensorflow
@pytest.mark.parametrize("make", [keras.Sequential, Subclassed])
def test_neither_augmentation_nor_noise_is_exported(tmp_path, make):
    # Keras' augmentation says "training" to all that follows it, where nobody says otherwise.
    model = make([keras.layers.RandomFlip(), keras.layers.Flatten(), kla.RPAU(noise=0.5)])
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype("float32")
    expected = ops.convert_to_numpy(model(x, training=False))
    model.export(tmp_path / "model", verbose=False)
    import tensorflow as tf

    served = tf.saved_model.load(tmp_path / "model")
    np.testing.assert_allclose(served.serve(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.tensorflow
def test_the_older_model_stays_where_the_new_one_cannot_be_put(model, tmp_path, monkeypatch):
    path = tmp_path / "model"
    export_saved_model(model, path)
    rename = os.rename

    def refuse(old, new):
        if str(old).endswith("new"):
            raise OSError("no")
        rename(old, new)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="no"):
        export_saved_model(model, path, overwrite=True)
    assert (path / "saved_model.pb").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.tensorflow
def test_a_function_inside_that_was_traced_with_kernels_is_traced_anew(tmp_path):
    import tensorflow as tf

    model = trained(Nested())
    inner = model.layers[1].inner.get_concrete_function(tf.TensorSpec((None, 4)))
    assert "KerasLearnact>Rational" in {node.op for node in inner.graph.as_graph_def().node}
    model.export(tmp_path, verbose=False)
    assert_plain(tmp_path)
    assert model.layers[1].activation.path == "kernel"


@pytest.mark.tensorflow
def test_an_endpoint_that_was_traced_with_kernels_is_an_error(model):
    import tensorflow as tf

    traced = tf.function(lambda x: model(x))
    traced(X)
    archive = keras.export.ExportArchive()
    with pytest.raises(ValueError, match="KerasLearnact>Rational. Give its input_signature too"):
        archive.add_endpoint("serve", traced)
    archive.add_endpoint("serve", traced, [tf.TensorSpec((None, 8))])


@pytest.mark.tensorflow
def test_other_threads_keep_their_kernels():
    import threading

    layer, paths = kla.PAU(), []
    with kernels.portable():
        assert layer.path == "reference: traced for an export"
        thread = threading.Thread(target=lambda: paths.append(layer.path))
        thread.start()
        thread.join()
    assert paths == [layer.path] == ["kernel"]


# The function export_saved_model.


@pytest.mark.tensorflow
def test_an_older_saved_model_is_replaced_only_on_request(model, tmp_path):
    import tensorflow as tf

    first = keras.models.clone_model(model)
    path = tmp_path / "deep" / "served"
    export_saved_model(first, path)
    assert_plain(path)
    with pytest.raises(FileExistsError, match="an older SavedModel. Use overwrite=True"):
        export_saved_model(model, path)
    export_saved_model(model, path, overwrite=True)
    # The same float32 sums, perhaps in another order.
    loaded = tf.saved_model.load(path)
    np.testing.assert_allclose(loaded.serve(X), model.predict(X, verbose=0), rtol=1e-5, atol=1e-5)
    assert [entry.name for entry in path.parent.iterdir()] == ["served"]


@pytest.mark.tensorflow
def test_anything_else_is_never_replaced(model, tmp_path):
    (tmp_path / "mine").write_text("mine")
    for path in (tmp_path, tmp_path / "mine"):
        with pytest.raises(FileExistsError, match="not a SavedModel. Use another path"):
            export_saved_model(model, path, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


@pytest.mark.tensorflow
def test_a_failure_leaves_nothing(model, tmp_path):
    wrong = [keras.InputSpec(shape=(None, 5), dtype="float32")]
    with pytest.raises(ValueError, match="expected axis -1"):
        export_saved_model(model, tmp_path / "served", input_signature=wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.tensorflow
def test_kernels_in_the_graph_are_found(model, tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "is_portable", lambda: False)
    with pytest.raises(ValueError, match="was traced with kernels: KerasLearnact>Rational"):
        export_saved_model(model, tmp_path / "served")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong, path, error, message",
    [
        (kla.PAU(), "served", TypeError, "must be a keras.Model"),
        (keras.Sequential([kla.PAU()]), "served", ValueError, "is not built"),
        (None, "gs://bucket/served", ValueError, "on a local disk"),
    ],
)
def test_wrong_use_is_named(wrong, path, error, message, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        export_saved_model(wrong or model, path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow is installed")
def test_without_tensorflow_the_error_names_it(model, tmp_path):
    with pytest.raises(ImportError, match="pip install"):
        export_saved_model(model, tmp_path / "served")


# The formulas of plain operations.


def portable(function, *arguments):
    with kernels.portable():
        return ops.convert_to_numpy(function(*map(ops.convert_to_tensor, arguments)))


def test_exponents_and_powers_are_the_same_without_bits():
    rng = np.random.default_rng(0)
    x = np.ldexp(rng.uniform(1, 2, 2000), rng.integers(-149, 128, 2000)) * rng.choice([-1, 1], 2000)
    powers = np.ldexp(1.0, np.arange(-126, 128))
    near = [np.nextafter(powers.astype("float32"), np.float32(to)) for to in (0, np.inf)]
    x = np.concatenate([x, powers, *near, [0, np.inf, -np.inf, np.nan]]).astype("float32")
    expected = ops.convert_to_numpy(numerics.exponent(ops.convert_to_tensor(x)))
    np.testing.assert_array_equal(portable(numerics.exponent, x), expected)
    k = np.arange(-300, 128, dtype="int32")
    expected = np.where(k < -126, 0, np.ldexp(1.0, k)).astype("float32")
    np.testing.assert_array_equal(
        portable(lambda k: numerics.power_of_two(k, "float32"), k), expected
    )


@pytest.mark.parametrize("version", "ABCN")
@pytest.mark.parametrize("m, n", [(5, 4), (3, 3), (2, 4), (3, 0), (1, 1)])
def test_the_rational_function_of_exports_is_the_formula(version, m, n):
    rng = np.random.default_rng(m + 10 * n)
    a = rng.normal(size=(m + 1, 1)).astype("float32")
    # Of one sign: version N has no pole at x > 0, where rounding would count for more.
    b = abs(rng.normal(size=(n + (version == "C"), 1))).astype("float32") + 0.1
    x = np.concatenate([np.linspace(0, 30, 301), 10.0 ** np.linspace(2, 38, 200)]).astype("float32")
    x = x if version == "N" else np.concatenate([x, -x])

    def function(x):
        return rational(
            x, ops.convert_to_tensor(a), ops.convert_to_tensor(b) if len(b) else [], version
        )

    expected = ops.convert_to_numpy(function(ops.convert_to_tensor(x)))
    near = abs(x) <= 1e3
    got = portable(function, x)
    assert not np.isnan(got).any()
    # Near, the same sums, whose rounding is relative to their terms, here about 1.
    np.testing.assert_allclose(got[near], expected[near], rtol=1e-5, atol=1e-5)
    # Far, also a power by its logarithm, up to 5 * 60: 300 half units of 2^-24 and some.
    normal = ~near & (abs(expected) > 1e-37) & (abs(expected) < 1e37)
    np.testing.assert_allclose(got[normal], expected[normal], rtol=5e-5)


@pytest.mark.parametrize("leading", [1, 2])
def test_far_out_leading_zeros_do_not_count(leading):
    a, b = np.array([1, 2, 0, 0], "float32"), np.array([3, 0, 0], "float32")[:leading]

    def function(x):  # (1 + 2 x) / (1 + 3 |x|)
        return rational(x, ops.convert_to_tensor(a), ops.convert_to_tensor(b), "A")

    got = portable(function, np.array([1e30, -3e38, np.inf, np.nan], "float32"))
    np.testing.assert_allclose(got, [2 / 3, -2 / 3, 2 / 3, np.nan], rtol=1e-6)  # float32


def test_a_choice_takes_nothing_of_the_value_that_it_does_not_choose():
    condition = np.array([True, False])
    value, other = np.array([np.inf, np.nan]), np.array([np.nan, 2.0])
    np.testing.assert_array_equal(portable(numerics.select, condition, value, other), [np.inf, 2])
