import keras
import numpy as np

from training.feeding import ArrayFeed, Batches


def epoch(batches, number):
    batches.start_epoch(number)
    return [batches[i] for i in range(len(batches))]


def test_an_epoch_has_every_example_once_and_a_smaller_last_batch():
    inputs = np.arange(10)
    seen = epoch(Batches(inputs, inputs * 2, batch_size=4, seed=0), 0)
    assert [len(x) for x, _ in seen] == [4, 4, 2]
    assert sorted(np.concatenate([x for x, _ in seen])) == list(range(10))
    assert all(np.array_equal(y, 2 * x) for x, y in seen)


def test_the_order_depends_on_the_seed_and_the_epoch_and_on_nothing_before():
    inputs = np.arange(100)

    def order(seed, *epochs):
        batches = Batches(inputs, inputs, 100, seed)
        return [epoch(batches, e)[0][0].tolist() for e in epochs][-1]

    assert order(1, 0, 1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 1)
    assert order(1, 2) != order(2, 2)


def test_without_a_seed_the_order_stays():
    assert epoch(Batches(np.arange(4), np.arange(4), 4), 3)[0][0].tolist() == [0, 1, 2, 3]


def test_keras_trains_each_epoch_on_the_order_of_that_epoch():
    # A linear model that sums what it sees: SGD on the loss -w * x adds learning rate * x.
    inputs = np.arange(6, dtype="float32")[:, None]
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(np.asarray(self.model.layers[0].kernel).item()))

    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, out: -keras.ops.mean(out))
    feed = ArrayFeed((inputs, inputs), (inputs, inputs), batch_size=1, seed=7)
    arguments = feed.arguments(first_epoch=3)
    arguments["callbacks"].append(Look())
    model.fit(**arguments, initial_epoch=3, epochs=5, verbose=0)
    orders = [np.random.default_rng((7, e)).permutation(6) for e in (3, 4)]
    assert np.diff([0, *seen]).tolist() == np.concatenate(orders).tolist()


def test_tests_run_in_batches_of_256_or_more():
    arrays = np.zeros((1000, 1)), np.zeros(1000)
    assert len(ArrayFeed(arrays, arrays, batch_size=8, seed=0).test) == 4
    assert ArrayFeed(arrays, arrays, batch_size=8, seed=0).steps_per_epoch == 125
