import gc
import weakref

import keras
import numpy as np
import pytest

from keras_learnact.layers.base import LearnableActivation, Parameter
from keras_learnact.observe import activation_layers, named_activations, record_inputs

ONES = keras.initializers.Ones()


class Slope(LearnableActivation):
    """`f(x) = slope[0] * x`, slope 2: an activation whose numbers a reader can check."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    def parameter_list(self):
        return [Parameter("slope", 1, [2.0])]

    def function(self, x, slope):
        return slope[0] * x


class Block(keras.layers.Layer):
    """A plain layer that keeps its activations in a private attribute, a list and a dict."""

    def __init__(self):
        super().__init__()
        self._first = Slope(name="first")
        self.more = [Slope(name="second"), {"key": Slope(name="third")}]

    def call(self, x):
        return self.more[1]["key"](self.more[0](self._first(x)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.block = Block()
        self.last = Slope(name="last")

    def call(self, x):
        return self.last(self.block(x))


def names(model):
    return [layer.name for layer in activation_layers(model)]


def test_activations_are_found_in_arguments_wrappers_cells_and_submodels_in_order_of_definition():
    inner = keras.Sequential(
        [keras.Input((3, 2)), keras.layers.TimeDistributed(Slope(name="wrapped"))]
    )
    model = keras.Sequential(
        [
            keras.Input((3, 2)),
            keras.layers.Conv1D(2, 1, activation=Slope(name="of_conv")),
            inner,
            keras.layers.Activation(Slope(name="in_activation")),
            keras.layers.RNN(
                [
                    keras.layers.SimpleRNNCell(2, activation=Slope(name="cell_1")),
                    keras.layers.SimpleRNNCell(2, activation=Slope(name="cell_2")),
                ]
            ),
            Slope(name="own"),
            keras.layers.Dense(1, activation=Slope(name="of_dense")),
        ]
    )
    assert names(model) == [
        *["of_conv", "wrapped", "in_activation", "cell_1", "cell_2", "own", "of_dense"]
    ]


def test_a_functional_model_lists_its_activations_in_the_order_of_the_calls():
    late, early = Slope(name="late"), Slope(name="early")
    x = keras.Input((2,))
    assert names(keras.Model(x, late(early(x)))) == ["early", "late"]


def test_activations_are_found_in_subclassed_models_private_attributes_lists_and_dictionaries():
    assert names(Subclassed()) == ["first", "second", "third", "last"]


def test_an_activation_that_two_layers_share_is_listed_once():
    shared = Slope(name="shared")
    model = keras.Sequential(
        [keras.layers.Dense(2, activation=shared), keras.layers.Dense(2, activation=shared)]
    )
    assert names(model) == ["shared"]


def test_an_activation_is_its_own_only_activation_and_a_plain_layer_has_none():
    slope = Slope()
    assert activation_layers(slope) == [slope]
    assert activation_layers(keras.layers.Dense(2)) == []


def test_every_call_is_recorded_with_what_the_activation_was_called_on():
    # 1 -> dense (x 3) -> 3 -> slope (x 2) -> 6 -> the same slope again.
    slope = Slope()
    model = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(3.0)),
            slope,
            keras.layers.Activation(slope),
        ]
    )
    seen = []
    record_inputs(model, np.ones((1, 1), "float32"), lambda *call: seen.append(call))
    assert [(layer, values.tolist()) for layer, values in seen] == [(slope, [[3]]), (slope, [[6]])]


def test_the_samples_come_in_batches_and_the_last_one_is_smaller():
    sizes = []
    record_inputs(
        Slope(), np.zeros((5, 2), "float32"), lambda _, x: sizes.append(x.shape), batch_size=2
    )
    assert sizes == [(2, 2), (2, 2), (1, 2)]


def test_a_model_of_several_inputs_takes_a_dictionary():
    a, b = keras.Input((1,), name="a"), keras.Input((1,), name="b")
    model = keras.Model({"a": a, "b": b}, Slope()(a - b))
    seen = []
    x = {"a": np.full((1, 1), 5.0, "float32"), "b": np.full((1, 1), 3.0, "float32")}
    record_inputs(model, x, lambda _, values: seen.append(values.item()))
    assert seen == [2]


def test_a_model_that_predicted_and_trained_before_is_observed_and_then_works_as_before():
    model = keras.Sequential([keras.Input((2,)), Slope(sharing="channel"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((4, 2), "float32"), np.zeros((4, 1), "float32")
    model.fit(x, y, verbose=0)
    before = model.predict(x, verbose=0)
    seen = []
    record_inputs(model, x, lambda _, values: seen.append(values.sum()))
    assert seen == [8]
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    model.fit(x, y, verbose=0)
    assert seen == [8]


def test_inference_mode_is_used():
    # Dropout would drop or double its input.
    model = keras.Sequential([keras.layers.Dropout(0.5, seed=0), Slope()])
    seen = []
    record_inputs(
        model, np.ones((1, 100), "float32"), lambda _, values: seen.extend(values.ravel())
    )
    assert set(seen) == {1}


def test_half_precision_inputs_are_given_as_the_activation_gets_them():
    seen = []
    record_inputs(
        Slope(dtype="mixed_float16"), np.ones((1, 1), "float32"), lambda _, x: seen.append(x.dtype)
    )
    assert seen == ["float16"]


@pytest.mark.parametrize("failing", ["function", "model"])
def test_an_error_passes_through_and_leaves_no_trace(failing):
    class Failing(keras.layers.Layer):
        def call(self, x):
            if failing == "model":
                raise ArithmeticError("on purpose")
            return x

    def function(layer, values):
        if failing == "function":
            raise ArithmeticError("on purpose")

    slope = Slope()
    model = keras.Sequential([slope, Failing()])
    with pytest.raises(ArithmeticError, match="on purpose"):
        record_inputs(model, np.ones((1, 1), "float32"), function)
    assert "call" not in vars(slope)


def test_a_call_that_was_replaced_before_is_put_back():
    slope = Slope()
    replacement = slope.call
    slope.call = replacement
    record_inputs(slope, np.ones((1, 1), "float32"), lambda *_: None)
    assert vars(slope)["call"] is replacement


def test_the_model_and_the_function_are_not_kept_alive():
    def function(layer, values):
        pass

    model = keras.Sequential([Slope()])
    record_inputs(model, np.ones((1, 1), "float32"), function)
    references = [weakref.ref(function), weakref.ref(model.layers[0])]
    del function, model
    keras.backend.clear_session()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


@pytest.mark.parametrize("unroll", [True, False])
def test_recurrent_cells_are_seen_where_their_loop_has_numbers(unroll):
    # With the kernel 1 and no recurrent weights the cell's activation sees the input itself.
    cell = keras.layers.SimpleRNNCell(
        1, activation=Slope(), kernel_initializer=ONES, recurrent_initializer="zeros"
    )
    model = keras.Sequential([keras.layers.RNN(cell, unroll=unroll)])
    x = np.array([[[1.0], [5.0]]], "float32")
    seen = []
    record_inputs(model, x, lambda _, values: seen.append(values.item()))
    if keras.backend.backend() == "jax" and not unroll:
        assert seen == []  # jax.lax.scan traces its body
    else:
        assert set(seen) == {1, 5}


def test_equal_names_of_submodels_are_numbered():
    layers = [Slope(name="act") for _ in range(3)]
    model = keras.Sequential([keras.Sequential([layer]) for layer in layers])
    assert named_activations(model) == {"act": layers[0], "act_2": layers[1], "act_3": layers[2]}
