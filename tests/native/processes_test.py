"""Kernels beside other threads and processes: a fork leaves the kernels' own threads behind."""

import multiprocessing
import os

import keras
import numpy as np
import pytest

from keras_learnact import PAU, kernels

pytestmark = [
    pytest.mark.tensorflow,
    # The parent does have threads: that is what is tested.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

# Large enough for several threads.
X = np.linspace(-3, 3, 200_000, dtype="float32").reshape(-1, 8)


@pytest.fixture
def layer():
    if kernels.load()[0] is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(kernels.load()[1])
    layer = PAU()
    layer(X)
    assert layer.path == "kernel"
    return layer


def test_the_workers_of_a_data_pipeline_call_the_kernel(layer):
    import tensorflow as tf

    expected = layer(X).numpy()
    data = tf.data.Dataset.from_tensor_slices(X.reshape(50, -1, 8))
    data = data.map(layer, num_parallel_calls=4).batch(50)
    np.testing.assert_array_equal(next(iter(data)).numpy().reshape(X.shape), expected)


class Rows(keras.utils.PyDataset):
    def __init__(self):
        super().__init__(workers=2, use_multiprocessing=True, max_queue_size=2)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        rows = X[index * 512 : (index + 1) * 512]
        return rows, rows[:, :1]


def test_training_goes_on_while_worker_processes_are_forked(layer):
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(64), PAU(), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse")
    history = model.fit(Rows(), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def _values(queue):
    queue.put(np.asarray(PAU()(X)))


def test_a_process_of_its_own_gets_the_same_bits(layer):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_values, args=(queue,))
    child.start()
    values = queue.get(timeout=120)
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(values, np.asarray(layer(X)))
