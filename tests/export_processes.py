"""What export_test.py asks of other processes.

    python -m tests.export_processes write FOLDER   # trains a model and exports it
    python -m tests.export_processes serve FOLDER   # uses the exports, without Keras and us

The second prints a JSON dict: of every case "", or how it failed.
"""

import contextlib
import functools
import importlib.machinery
import io
import json
import re
import sys
import traceback
from pathlib import Path

import numpy as np

# The inputs' names in the model, and what each sample holds of them. Batches of two sizes; far
# out; and nan, which must stay nan. The images' part of the model is linear but for maxima.
RNG = np.random.default_rng(0)
FAR = np.array([[1e30, -1e30, 1e20, -1e20, 1e8, -1e8, 30, -30]], "float32")
SAMPLES = {
    "three": {
        "vector": RNG.normal(size=(3, 8), scale=2).astype("float32"),
        "image": RNG.normal(size=(3, 5, 5, 2)).astype("float32"),
    },
    "seven": {
        "vector": RNG.normal(size=(7, 8), scale=2).astype("float32"),
        "image": RNG.normal(size=(7, 5, 5, 2)).astype("float32"),
    },
    "far": {"vector": FAR, "image": np.zeros((1, 5, 5, 2), "float32")},
    "nan": {
        "vector": np.full((1, 8), np.nan, "float32"),
        "image": np.zeros((1, 5, 5, 2), "float32"),
    },
}


# Writing.


def exported_layers():
    """Every layer that the package exports, each ready for `[batch, 8]`."""
    import keras

    import keras_learnact as kla

    of_images = {"MaxoutConv2D"}
    arguments = {"MaxoutDense": (3,), "GroupKANDense": (3,)}
    return [
        cls(*arguments.get(name, ()), name=name)
        for name, cls in vars(kla.layers).items()
        if isinstance(cls, type)
        and issubclass(cls, keras.layers.Layer)
        and cls is not kla.LearnableActivation
        and name not in of_images
    ]


def trained_model():
    """Two inputs; an output for every layer that the package exports; trained with kernels."""
    import keras

    import keras_learnact as kla

    keras.utils.set_random_seed(0)
    vector, image = keras.Input((8,), name="vector"), keras.Input((5, 5, 2), name="image")
    layers = exported_layers()
    for version in "BCN":
        # A start without poles is safe from them near it.
        pau = kla.PAU((3, 2), version, "sigmoid", sharing=2, name=f"PAU_{version}")
        layers.append(pau)
    inner = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4, kla.PAU())], name="in")
    of_image = inner(kla.MaxoutConv2D(3, 2, name="MaxoutConv2D")(image))
    model = keras.Model([vector, image], [*(layer(vector) for layer in layers), of_image])
    losses = ["mse"] * len(model.outputs)
    # XLA would take seconds to compile it.
    model.compile(keras.optimizers.Adam(0.01), losses, jit_compile=False)
    x = [SAMPLES["seven"]["vector"], SAMPLES["seven"]["image"]]
    targets = [0.3 * y for y in model.predict(x, verbose=0)]
    model.fit(x, targets, epochs=3, verbose=0)
    return model


def write(folder):
    """Trains a model, exports it in every format of this backend, notes what it computes."""
    import keras

    import keras_learnact.export
    from keras_learnact import observe

    model = trained_model()
    learnable = [layer for layer in observe.activation_layers(model) if hasattr(layer, "kernel")]
    # A formula given as text has no kernel.
    compiled = [layer for layer in learnable if not isinstance(layer, keras_learnact.Expression)]
    assert {layer.path for layer in compiled} == {"kernel"}
    expected = {}
    for sample, x in SAMPLES.items():
        for number, y in enumerate(model.predict([x["vector"], x["image"]], verbose=0)):
            expected[f"{sample}_{number}"] = y
    backend = keras.backend.backend()
    np.savez(folder / f"expected_{backend}.npz", **expected)
    names = [type(output._keras_history.operation).__name__ for output in model.outputs]
    np.savez(folder / "names.npz", names=names)

    model.export(folder / f"method_{backend}", verbose=False)
    small = model.get_layer("in")
    x = np.ones((2, 4, 4, 3), "float32")
    np.savez(folder / f"small_{backend}.npz", x=x, y=small.predict(x, verbose=0))
    keras_learnact.export.export_saved_model(small, folder / f"function_{backend}")
    if backend == "tensorflow":
        model.export(folder / "model.tflite", format="litert", verbose=False)
        model.export(folder / "model.onnx", format="onnx", verbose=False)


# Serving.


class NotInstalled:
    """Finds these packages in vain. TensorFlow imports Keras where it can, and Keras JAX."""

    names = {"keras_learnact", "keras", "jax"}

    def find_spec(self, name, path=None, target=None):
        found = name.partition(".")[0] in self.names
        return importlib.machinery.ModuleSpec(name, self) if found else None

    def create_module(self, spec):
        raise ModuleNotFoundError(f"No module named {spec.name!r}", name=spec.name)

    def exec_module(self, module):
        raise NotImplementedError


def assert_equals_the_model(folder, backend, run, not_far=()):
    """Compares what `run(vector, image)` gives, one array for each output, with the model's.

    `not_far` are the names of layers that are compared up to 1e20 only.
    """
    names = np.load(folder / "names.npz")["names"]
    expected = np.load(folder / f"expected_{backend}.npz")
    for sample, x in SAMPLES.items():
        for number, y in enumerate(run(**x)):
            wanted = expected[f"{sample}_{number}"]
            if sample == "far" and names[number] in not_far:
                near = np.abs(FAR) <= 1e20
                y, wanted = y[near], wanted[near]
            # float32 sums in another order; far out also a power by its logarithm.
            tolerance = 1e-4 if sample == "far" else 1e-5
            np.testing.assert_allclose(
                y, wanted, rtol=tolerance, atol=1e-5, err_msg=f"{sample}, output {number}"
            )


def in_order(outputs):
    """The arrays of a dict with the keys output_0, output_1, …"""
    return [np.asarray(outputs[f"output_{number}"]) for number in range(len(outputs))]


def what_export_wrote(folder, backend):
    import tensorflow as tf

    loaded = tf.saved_model.load(folder / f"method_{backend}")
    assert_equals_the_model(
        folder, backend, lambda vector, image: list(map(np.asarray, loaded.serve([vector, image])))
    )
    signature = loaded.signatures["serving_default"]
    assert_equals_the_model(folder, backend, lambda **x: in_order(signature(**x)))


def what_export_saved_model_wrote(folder, backend):
    import tensorflow as tf

    loaded = tf.saved_model.load(folder / f"function_{backend}")
    expected = np.load(folder / f"small_{backend}.npz")
    x, y = expected["x"], expected["y"]
    np.testing.assert_allclose(loaded.serve(x), y, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(loaded.serve(x[:1]), y[:1], rtol=1e-5, atol=1e-5)


def the_command_line_of_tensorflow(folder, backend):
    from tensorflow.python.tools import saved_model_cli

    saved_model, data = folder / f"function_{backend}", folder / f"small_{backend}.npz"

    def run(*arguments):
        said, sys.argv = io.StringIO(), ["saved_model_cli", *map(str, arguments)]
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            saved_model_cli.main()
        return said.getvalue()

    said = run("show", "--dir", saved_model, "--all")
    assert "serving_default" in said and "(-1, 4, 4, 3)" in said, said
    (name,) = re.findall(r"inputs\['(\w+)'\]", said[said.index("serving_default") :])[:1]
    which = "--dir", saved_model, "--tag_set=serve", "--signature_def=serving_default"
    run("run", *which, "--inputs", f"{name}={data}[x]", "--outdir", folder / backend)
    y = np.load(folder / backend / "output_0.npy")
    np.testing.assert_allclose(y, np.load(data)["y"], rtol=1e-5, atol=1e-5)


def litert(folder):
    from ai_edge_litert.interpreter import Interpreter

    # No operation of TensorFlow itself, which this runtime would refuse.
    runner = Interpreter(str(folder / "model.tflite")).get_signature_runner("serving_default")
    # A known defect: beyond, LiteRT makes nan of x * sigmoid(beta * x) as Expression writes it.
    assert_equals_the_model(
        folder, "tensorflow", lambda **x: in_order(runner(**x)), not_far=["Expression"]
    )


def onnx(folder):
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert_equals_the_model(folder, "tensorflow", lambda **x: session.run(None, x))


CASES = {
    f"{name} on {backend}": functools.partial(case, backend=backend)
    for name, case in {
        "model.export": what_export_wrote,
        "export_saved_model": what_export_saved_model_wrote,
        "saved_model_cli": the_command_line_of_tensorflow,
    }.items()
    for backend in ("tensorflow", "jax")
} | {"LiteRT": litert, "ONNX": onnx}


def serve(folder):
    sys.meta_path.insert(0, NotInstalled())
    failures = {}
    for name, case in CASES.items():
        try:
            case(folder)
            failures[name] = ""
        except Exception:
            failures[name] = traceback.format_exc()
    print(json.dumps(failures))


if __name__ == "__main__":
    {"write": write, "serve": serve}[sys.argv[1]](Path(sys.argv[2]))
