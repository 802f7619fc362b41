"""Models that are served where this package is not installed.

Whatever Keras exports is traced in `kernels.portable()`: as formulas of plain operations, without
kernels, also after the model was trained with them. So `model.export`, in all its formats, and
`keras.export.ExportArchive` need nothing of the user. Keras has no hook for that: this file puts
one around the two methods that all exports go through.
"""

import contextlib
import functools
import os
import tempfile
from pathlib import Path

import keras
from keras.src.export import saved_model as keras_saved_model

from keras_learnact import kernels

FILE = "saved_model.pb"


def export_saved_model(model, path, *, overwrite=False, input_signature=None, verbose=False):
    """Writes a model as a SavedModel of TensorFlow's own operations alone, and checks that it is.

    It is what `model.export(path)` writes, but all or nothing: the folder appears when it is
    complete, and it never holds an operation of this package. It serves in any process with
    TensorFlow, also from Keras on JAX. Layers compute as at inference (an `RPAU` without noise).
    The first axis of the inputs, the batch, is of any size.

    Args:
        model: a built `keras.Model`; one that is neither Sequential nor Functional must have been
            called on data.
        path: the folder to write, on a local disk. It may exist if it is empty.
        overwrite: whether to replace an older SavedModel. Anything else is never replaced.
        input_signature: shapes and dtypes of the inputs, as of `keras.Model.export`. Default: the
            model's own.
        verbose: whether Keras prints the endpoints.

    Raises:
        TypeError: for a model that is not a `keras.Model`.
        ValueError: for a model that is not built, a path that is not local, a Keras backend that
            has no SavedModels, or kernels that are in the graph nevertheless.
        FileExistsError: for a path that exists, unless it may be replaced.
        ImportError: where TensorFlow, which writes the file, is not installed.

    Example:

    >>> export_saved_model(model, "served")
    >>> served = tf.saved_model.load("served")  # in another process
    >>> served.serve(images)
    """
    path = _free_path(path, overwrite)
    _assert_can_be_exported(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as beside:
        written = Path(beside, "new")
        model.export(
            written, format="tf_saved_model", input_signature=input_signature, verbose=verbose
        )
        _assert_plain(model, written)
        old = Path(beside, "old")
        if path.exists():
            os.rename(path, old)
        try:
            os.rename(written, path)
        except BaseException:
            if old.exists():
                os.rename(old, path)
            raise


def _assert_can_be_exported(model):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "export_saved_model: `model` must be a keras.Model. Put a single layer in a "
            f"keras.Sequential. Received: model={model!r}"
        )
    if not model.built:
        raise ValueError(
            f"export_saved_model: the model {model.name!r} is not built, so its inputs are not "
            "known. Call it on data first, or give it a keras.Input."
        )
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise ValueError(
            "export_saved_model: Keras writes SavedModels from its backends tensorflow and jax. "
            f"Received: {backend}. Save the model with model.save and load it with "
            "KERAS_BACKEND=tensorflow."
        )
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        raise ImportError(
            "export_saved_model: TensorFlow writes SavedModels, and it is not installed: "
            "pip install 'keras_learnact[tensorflow]'"
        ) from None


def _free_path(path, overwrite):
    if "://" in os.fspath(path):
        raise ValueError(
            "export_saved_model: `path` must be on a local disk, where a folder can be renamed. "
            f"Received: path={path!r}. Use model.export(path)."
        )
    path = Path(os.path.realpath(path))  # a link goes on to lead there
    old = (path / FILE).is_file()
    if path.exists() and not (path.is_dir() and (old and overwrite or not any(path.iterdir()))):
        way_out = "Use overwrite=True, or another path." if old else "Use another path."
        what = "an older SavedModel" if old else "something that is not a SavedModel"
        raise FileExistsError(f"export_saved_model: {path} is {what}. {way_out}")
    return path


def _assert_plain(model, folder):
    from tensorflow.core.protobuf import saved_model_pb2

    written = saved_model_pb2.SavedModel.FromString((folder / FILE).read_bytes())
    found = set().union(*(_kernels_in(meta.graph_def) for meta in written.meta_graphs))
    if found:
        raise ValueError(
            f"export_saved_model: the model {model.name!r} calls a function that was traced with "
            f"kernels: {', '.join(sorted(found))}. Trace it in kernels.portable()."
        )


def _kernels_in(graph):
    """The kernels that a GraphDef calls, as operations of TensorFlow or as handlers of XLA."""
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    operations = {node.op for node in nodes if node.op.startswith("KerasLearnact>")}
    modules = [node.attr["module"].s for node in nodes if node.op == "XlaCallModule"]
    handlers = {f"keras_learnact.{name}" for name in kernels.KERNELS}
    return operations | {h for h in handlers if any(h.encode() in module for module in modules)}


# Around Keras.


def _assert_traced_without_kernels(function):
    if keras.backend.backend() != "tensorflow":
        return
    traces = getattr(function, "_list_all_concrete_functions", list)()
    found = set().union(*(_kernels_in(trace.graph.as_graph_def()) for trace in traces))
    if found:
        raise ValueError(
            "add_endpoint: `fn` was traced with kernels of keras_learnact, which a process "
            f"without it does not know. Received: fn={function}, which calls "
            f"{', '.join(sorted(found))}. Give its input_signature too, then it is traced anew."
        )


def _at_inference(function):
    """The same; a model that is called as it is, as `model.export` does, with `training=False`.

    Keras takes that of layers whose `call` has no such argument too, and tells those inside.
    Without it Keras' layers for augmentation augment, and an RPAU behind one of them draws noise.
    """
    layer = getattr(function, "__self__", None)
    if isinstance(layer, keras.layers.Layer) and function.__name__ == "__call__":
        return functools.wraps(function)(functools.partial(function, training=False))
    return function


def _traced_portably(function):
    """The function of an endpoint, whoever traces it, and when."""

    @functools.wraps(function, updated=())  # a tf.function keeps its state there
    def traced(*args, **kwargs):
        with kernels.portable(), _inner_functions_traced_anew():
            return function(*args, **kwargs)

    return traced


def _inner_functions_traced_anew():
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    from keras_learnact.kernels import tensorflow as binding

    return binding.traced_anew()


def _hook():
    model = keras.Model
    # Before Keras 3.14 a class of its own; since then what `ExportArchive` makes.
    archive = getattr(
        keras_saved_model, "BackendSavedModelExportArchive", keras.export.ExportArchive
    )
    export, add_endpoint = model.export, archive.add_endpoint

    @functools.wraps(export)
    def export_portably(self, *args, **kwargs):
        with kernels.portable():
            return export(self, *args, **kwargs)

    @functools.wraps(add_endpoint)
    def add_portable_endpoint(self, name, fn, input_signature=None, **kwargs):
        if input_signature is None:
            _assert_traced_without_kernels(fn)
        else:
            fn = _traced_portably(_at_inference(fn))
        return add_endpoint(self, name, fn, input_signature, **kwargs)

    model.export, archive.add_endpoint = export_portably, add_portable_endpoint


_hook()
