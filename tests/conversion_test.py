import re

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from keras_learnact import layers as learnable
from keras_learnact.conversion import Site, convert, fitted, freeze, simplify
from keras_learnact.layers import APL, PAU, LearnableActivation, Mixture, SReLU
from keras_learnact.observe import activation_layers

ACTIVATIONS = [
    c
    for c in vars(learnable).values()
    if isinstance(c, type) and issubclass(c, LearnableActivation) and c is not LearnableActivation
]


def exact(site):
    """A learnable unit that starts as exactly what it replaces: 1 times that function."""
    return Mixture((site.function,), initial=[1.0])


def outputs(model, x):
    # JAX compiles each operation of an eager call for each shape: a whole network takes minutes.
    jax = keras.backend.backend() == "jax"
    y = model.predict_on_batch(x) if jax else model(x, training=False)
    return [np.array(ops.convert_to_numpy(part)) for part in keras.tree.flatten(y)]


def assert_same_outputs(one, other, x):
    for a, b in zip(outputs(one, x), outputs(other, x), strict=True):
        # The same float32 operations, but a Mixture multiplies by 1 where XLA may fuse.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def values(model, without=()):
    """Every weight by its path, without those of learnable activations."""
    new = {id(w) for layer in activation_layers(model) for w in layer.weights}
    kept = [w for w in model.weights if id(w) not in new]
    # Keras numbers the weights that a layer gives no name.
    return {re.sub(r"variable_\d+", "variable", w.path): np.array(w.numpy()) for w in kept}


def assert_same_weights(before, after):
    assert before.keys() == after.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(value, after[path], err_msg=path)


def rows(model):
    return [row[:3] for row in model.conversion_report.rows]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def two_dense(activation="relu", **kwargs):
    hidden = [L.Dense(4, activation, name=f"hidden_{i}") for i in range(2)]
    return keras.Sequential([keras.Input((3,)), *hidden, L.Dense(2, name="head")], **kwargs)


# Networks of keras.applications.


def alive(model):
    """Makes the outputs depend on every activation, as those of a trained network do.

    Without pretrained weights a signal fades on its way through the batch norms, and ConvNeXt's
    branches are scaled by 1e-6.
    """
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.beta.assign(random.normal(size=layer.beta.shape))
        if type(layer).__name__ == "LayerScale":
            layer.gamma.assign(np.ones(layer.gamma.shape))
    return model


def vision_transformer():
    """A ViT as in Dosovitskiy et al. (2020), small: its MLPs have GELU, by both of its names."""
    image = keras.Input((16, 16, 3))
    x = L.Conv2D(8, 4, strides=4)(image)
    x = L.Reshape((16, 8))(x)
    for block in range(2):
        y = L.LayerNormalization()(x)
        x = x + L.MultiHeadAttention(2, 4, name=f"attention_{block}")(y, y)
        y = L.Dense(16, activation="gelu" if block else None)(L.LayerNormalization()(x))
        x = x + L.Dense(8)(y if block else ops.gelu(y))
    return keras.Model(image, L.Dense(5)(L.GlobalAveragePooling1D()(x)))


def application(name, **kwargs):
    return lambda: getattr(keras.applications, name)(
        input_shape=(32, 32, 3), weights=None, classes=5, classifier_activation=None, **kwargs
    )


NETWORKS = {
    "MobileNetV2": (application("MobileNetV2", alpha=0.35), "relu6", 35),
    "ResNet50": (application("ResNet50"), "relu", 49),
    "EfficientNetB0": (application("EfficientNetB0"), "silu", 49),
    "DenseNet121": (application("DenseNet121"), "relu", 121),
    "ConvNeXtTiny": (application("ConvNeXtTiny"), "gelu", 18),
    "ViT": (vision_transformer, "gelu", 2),
}


@pytest.mark.once
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_keeps_its_weights_names_and_outputs(name):
    make, activation, count = NETWORKS[name]
    model = alive(make())
    before, config = values(model), model.get_config()
    converted = convert(model, {activation: exact})
    assert len(converted.conversion_report.changed) == len(activation_layers(converted)) == count
    assert {row.was.split("(")[0] for row in converted.conversion_report.changed} == {activation}
    assert {op.name for op in converted.operations} == {op.name for op in model.operations}
    assert_same_weights(before, values(converted))
    assert_same_weights(before, values(model))
    assert model.get_config() == config and not activation_layers(model)
    assert_same_outputs(model, converted, noise(2, *model.input_shape[1:]))


# Kinds of models and layers.


@keras.saving.register_keras_serializable("conversion_test")
class Block(L.Layer):
    """A layer of one's own whose config holds its activation; and a second one only in its code."""

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)
        self.dense = L.Dense(3, "tanh", name="dense")

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.built = True

    def call(self, x):
        return self.activation(self.dense(x))

    def get_config(self):
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation),
        }


def functional():
    """Skips, a layer used twice, a submodel, operations, two inputs, two outputs, a dict."""
    a, b = keras.Input((6, 3), name="a"), keras.Input((6, 3), name="b")
    relu = L.ReLU(name="shared")
    x = relu(L.Dense(3, name="first")(a)) + a
    x = relu(L.Dense(3, activation="elu", name="second")(x)) * b
    x = keras.activations.relu(x, max_value=6)
    inner = keras.Sequential([L.Dense(3, "gelu", name="first"), L.Dropout(0.5)], name="inner")
    x = inner(ops.gelu(x[:, 1:]))
    return keras.Model({"a": a, "b": b}, [x, ops.mean(Block("silu", name="block")(x), axis=1)])


def test_functional_models_are_converted_wherever_they_have_activations(tmp_path):
    model, x = functional(), {"a": noise(4, 6, 3), "b": noise(4, 6, 3, seed=1)}
    names = ("relu", "elu", "relu6", "gelu", "swish", "tanh")
    converted = convert(model, dict.fromkeys(names, exact), inputs=x)
    named = ("shared", "second", "inner", "block")
    assert [row for row in rows(converted) if row[0].startswith(named)] == [
        ("shared", "relu", "Mixture"),
        ("second", "elu", "Mixture"),
        ("inner/first", "gelu", "Mixture"),
        ("block", "silu", "Mixture"),
        ("block", "Block", ""),
        ("block/dense", "tanh", ""),
    ]
    operations = [row[1:] for row in rows(converted) if not row[0].startswith(named)]
    assert operations == [("relu6", "Mixture"), ("gelu(approximate=True)", "Mixture")]
    assert "in its code" in converted.conversion_report.rows[-1].note
    assert converted.conversion_report.max_difference < 1e-5
    assert_same_weights(values(model), values(converted))
    assert_same_outputs(model, converted, x)
    converted.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(activation_layers(loaded)) == len(activation_layers(converted)) == 6
    assert_same_outputs(converted, loaded, x)


def test_recurrent_layers_wrappers_and_functions_of_ones_own_are_kept_or_replaced():
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            L.Bidirectional(L.LSTM(2, return_sequences=True), name="both"),
            L.TimeDistributed(L.Dense(3, "relu", name="inner"), name="each"),
            L.TimeDistributed(L.ReLU(negative_slope=0.25, name="leaky"), name="steps"),
            L.Lambda(lambda x: x * np.pi, name="code"),
            L.Dense(2, activation=lambda x: x * np.e),
        ]
    )
    mapping = dict.fromkeys(["tanh", "sigmoid", "relu", "leaky_relu"], exact)
    converted = convert(model, mapping)
    assert rows(converted) == [
        ("both/forward_lstm", "tanh", "Mixture"),
        ("both/backward_lstm", "tanh", "Mixture"),
        ("each/inner", "relu", "Mixture"),
        ("steps/leaky", "leaky_relu(negative_slope=0.25)", "Mixture"),
        ("code", "Lambda", ""),
    ]
    assert_same_weights(values(model), values(converted))
    assert_same_outputs(model, converted, noise(2, 5, 3))
    gates = convert(model, mapping, where="both/*.recurrent_activation")
    assert [row[:2] for row in rows(gates) if row[2]] == [
        ("both/forward_lstm.recurrent_activation", "sigmoid"),
        ("both/backward_lstm.recurrent_activation", "sigmoid"),
    ]
    assert_same_outputs(model, gates, noise(2, 5, 3))


@keras.saving.register_keras_serializable("conversion_test")
class InConfig(keras.Model):
    def __init__(self, dense, **kwargs):
        super().__init__(**kwargs)
        self.dense = dense

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {"dense": keras.saving.serialize_keras_object(self.dense)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["dense"]))


class InCode(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2, "relu")

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_is_converted_by_its_config_or_refused():
    model = InConfig(L.Dense(2, "relu", name="dense"))
    model(noise(4, 3))
    converted = convert(model, {"relu": exact})
    assert type(converted) is InConfig
    assert_same_outputs(model, converted, noise(4, 3))
    model = InCode()
    with pytest.raises(ValueError, match="must be built"):
        convert(model, {"relu": PAU})
    model(noise(4, 3))
    with pytest.raises(ValueError, match="no activation of the mapping.*in its code"):
        convert(model, {"relu": PAU})


class Doubled:
    """Twice what the model computes; its own step of training."""

    def call(self, x, training=None, mask=None):
        return 2 * super().call(x, training=training)

    def train_step(self, *arguments):
        return super().train_step(*arguments)


class DoubledSequential(Doubled, keras.Sequential):
    pass


class DoubledFunctional(keras.Model):
    def __init__(self, inputs, outputs, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x, training=None, mask=None):
        return self.scale * super().call(x, training=training)


class Plain(keras.Sequential):
    def __init__(self, units, **kwargs):
        super().__init__([keras.Input((3,)), L.Dense(units, "relu")], **kwargs)


class Refused(Doubled, Plain):
    pass


class FunctionalRefused(keras.Model):
    def __init__(self, units, **kwargs):
        x = keras.Input((3,))
        super().__init__(x, L.Dense(units, "relu")(x), **kwargs)
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")


def test_a_subclass_with_code_of_its_own_is_made_anew():
    x = keras.Input((3,))
    functional = DoubledFunctional(x, L.Dense(2, "relu")(x), name="doubled")
    functional.scale.assign(2.0)
    sequential = DoubledSequential([keras.Input((3,)), L.Dense(2, "relu")], name="doubled")
    nested = keras.Sequential([keras.Input((3,)), functional, L.Dense(2)])
    for model in (sequential, functional, nested):
        copy = convert(model, {"relu": exact})
        assert type(copy) is type(model) and copy.name == model.name
        assert_same_weights(values(model), values(copy))
        assert_same_outputs(model, copy, noise(4, 3))
        assert_same_outputs(model, freeze(copy), noise(4, 3))
        assert_same_outputs(model, simplify(copy), noise(4, 3))


@pytest.mark.parametrize("nested", [False, True])
def test_a_subclass_with_arguments_of_its_own_is_plain_or_refused(nested):
    def made(cls):
        return keras.Sequential([keras.Input((3,)), cls(4)]) if nested else cls(4)

    model = made(Plain)
    copy = convert(model, {"relu": exact})
    assert not any(isinstance(layer, Plain) for layer in (copy, *copy.layers))
    assert_same_outputs(model, copy, noise(4, 3))
    with pytest.raises(ValueError, match="Refused.*its own call, train_step.*takes layers and"):
        convert(made(Refused), {"relu": exact})
    with pytest.raises(ValueError, match="FunctionalRefused.*its own weights.*takes inputs, outp"):
        convert(made(FunctionalRefused), {"relu": exact})


def test_a_layer_beside_the_graph_is_not_lost():
    x = keras.Input((3,))
    model = DoubledFunctional(x, L.Dense(2, "relu")(x))
    model.beside = L.Dense(1)
    model.beside.build((None, 2))
    with pytest.raises(ValueError, match="its own call, layer 'dense.*', weights"):
        convert(model, {"relu": exact})


def test_two_classes_of_one_name_stay_two():
    def scaling(factor):
        class Scaling(L.Layer):
            def build(self, input_shape):
                self.w = self.add_weight(shape=input_shape[-1:], initializer="ones")

            def call(self, x):
                return factor * x * self.w

        return Scaling

    first, second = scaling(2.0), scaling(3.0)
    model = keras.Sequential(
        [keras.Input((5, 3)), first(), second(), L.TimeDistributed(first()), L.ReLU()]
    )
    for made in (exact, lambda: scaling(1.0)()):  # the new one has the name, too
        copy = convert(model, {"relu": made})
        assert [type(layer) for layer in copy.layers[:2]] == [first, second]
        assert_same_weights(values(model), values(convert(model, {"relu": exact})))
    assert_same_outputs(model, convert(model, {"relu": exact}), noise(2, 5, 3))


class KeepsConfig(keras.Model):
    """Keeps its argument as it came, for `get_config`, and gives it to a layer inside."""

    def __init__(self, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.activation = activation
        self.dense = L.Dense(4, activation=activation)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {**super().get_config(), "activation": self.activation}


class Drops(KeepsConfig):
    def __init__(self, activation="relu", **kwargs):
        super().__init__("relu", **kwargs)
        self.activation = activation


def test_an_argument_that_a_layer_keeps_as_its_config_has_it_is_replaced_inside():
    def learned():
        layer = SReLU(sharing="layer", trainable=False)
        layer.load_own_variables({str(i): w + 1 for i, w in enumerate(layer.weights)})
        return layer

    model = KeepsConfig()
    model(noise(4, 3))
    copy = convert(model, {"relu": learned})
    assert [row[1:3] for row in rows(copy)][0] == ("relu", "SReLU")
    assert copy.conversion_report.rows[0].parameters == 0  # frozen: none is trainable
    assert copy.built and not copy.dense.activation.trainable
    for new, made in zip(copy.dense.activation.weights, learned().weights, strict=True):
        np.testing.assert_array_equal(new.numpy(), made.numpy())
    copy = convert(model, {"relu": lambda: SReLU(sharing="layer")})
    assert copy.conversion_report.rows[0].parameters == 4
    assert rows(convert(model, {"relu": "gelu"}))[0][1:] == ("relu", "gelu")
    model = Drops()
    model(noise(4, 3))
    with pytest.raises(ValueError, match="'drops.*cannot be replaced.*keras.activations.get"):
        convert(model, {"relu": PAU})


def test_one_set_for_each_channel_has_its_weights_after_the_conversion():
    model = keras.Sequential([keras.Input((None, None, 2)), L.Conv2D(5, 3, activation="relu")])
    converted = convert(model, {"relu": lambda: PAU(initial="relu", sharing="channel")})
    (pau,) = activation_layers(converted)
    assert pau.parameters()["numerator"].shape == (5, 6)
    assert converted.conversion_report.rows[0].parameters == 50  # 5 channels, 6 + 4 coefficients


def test_a_compiled_model_with_a_loss_that_cannot_be_saved_is_copied_without_it():
    model = two_dense()
    model.compile("sgd", loss=lambda y, p: ops.sum(y - p))
    assert not convert(model, {"relu": PAU}).compiled
    assert model.compiled


def test_frozen_layers_stay_frozen_and_the_rest_learns():
    model = two_dense()
    model.layers[0].trainable = False
    converted = convert(model, {"relu": lambda: PAU(initial="relu")})
    first, second = activation_layers(converted)
    assert not first.trainable and second.trainable
    assert [layer.trainable for layer in converted.layers] == [False, True, True]
    before = [layer.parameters() for layer in (first, second)]
    of_given = outputs(model, noise(8, 3))[0]
    converted.compile("sgd", "mse")
    converted.fit(noise(8, 3), noise(8, 2), epochs=1, verbose=0)
    # The given model has arrays of its own: JAX's training deletes those of the one it trains.
    np.testing.assert_array_equal(of_given, outputs(model, noise(8, 3))[0])
    np.testing.assert_array_equal(before[0]["numerator"], first.parameters()["numerator"])
    assert np.any(before[1]["numerator"] != second.parameters()["numerator"])


def test_an_activation_that_is_not_element_wise_is_frozen_too():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, PAU()(learnable.MetaACONC(2)(L.Dense(4)(inputs))))
    frozen = freeze(model)
    assert len(frozen.trainable_weights) == 2  # of the dense layer
    assert [row.was for row in frozen.conversion_report.rows] == ["MetaACONC", "PAU"]
    again = freeze(keras.Model(inputs, learnable.MetaACONC(2)(inputs)))
    assert not again.trainable_weights


def test_a_layer_keeps_its_name_and_its_dtype_policy():
    model = keras.Sequential([keras.Input((3,)), L.ReLU(name="here", dtype="mixed_float16")])
    layer = convert(model, {"relu": PAU}).layers[0]
    assert (layer.name, layer.dtype_policy.name) == ("here", "mixed_float16")


def test_parameters_that_the_maker_has_set_are_kept():
    def learned():
        layer = SReLU(sharing="layer")
        layer.load_own_variables({str(i): w + 1 for i, w in enumerate(made.weights)})
        return layer

    made = SReLU(sharing="layer")
    (layer,) = activation_layers(convert(two_dense(), {"relu": learned}, where="hidden_0"))
    for old, new in zip(made.weights, layer.weights, strict=True):
        np.testing.assert_array_equal(old.numpy() + 1, new.numpy())


@pytest.mark.parametrize("cls", ACTIVATIONS, ids=lambda c: c.__name__)
def test_every_activation_goes_in_is_saved_and_can_be_frozen(cls, tmp_path):
    x = noise(4, 3)
    converted = convert(two_dense(), {"relu": cls})
    assert [type(layer) for layer in activation_layers(converted)] == [cls, cls]
    frozen = freeze(converted)
    assert_same_outputs(converted, frozen, x)
    frozen.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same_outputs(converted, loaded, x)
    constants = activation_layers(loaded)
    before = [layer.get_weights() for layer in constants]
    kernel = loaded.layers[0].kernel.numpy()
    loaded.compile("sgd", "mse")
    loaded.fit(x, noise(4, 2), epochs=1, verbose=0)
    assert not any(layer.trainable_weights for layer in constants)
    for layer, weights in zip(constants, before, strict=True):
        for old, new in zip(weights, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    assert np.any(kernel != loaded.layers[0].kernel.numpy())


# What is asked for.


def test_where_chooses_by_pattern_list_function_and_dict():
    model = two_dense()

    def changed(where):
        converted = convert(model, {"relu": PAU}, where)
        return [(row.layer, row.became) for row in converted.conversion_report.changed]

    assert changed("*_1") == [("hidden_1", "PAU")]
    assert changed(["*_0", "*_1"]) == [("hidden_0", "PAU"), ("hidden_1", "PAU")]
    assert changed(lambda layer: layer.name == "hidden_0") == [("hidden_0", "PAU")]
    assert changed({"*_1": APL, "hidden*": "SReLU"}) == [("hidden_0", "SReLU"), ("hidden_1", "APL")]


def test_keys_are_names_with_their_aliases_functions_and_classes():
    def double(x):
        return 2 * x

    model = keras.Sequential(
        [keras.Input((3,)), L.Dense(3, "silu"), L.Dense(3, double), L.PReLU(), L.ReLU(6.0)]
    )
    mapping = {"swish": PAU, double: APL, L.PReLU: SReLU, keras.activations.relu6: "gelu"}
    converted = convert(model, mapping)
    assert [row[1:] for row in rows(converted)] == [
        ("silu", "PAU"),
        ("double", "APL"),
        ("PReLU", "SReLU"),
        ("relu6", "gelu"),
    ]
    # SReLU's 4 parameters in place of the PReLU's slope, for each of 3 channels.
    assert converted.conversion_report.rows[2].parameters == 3 * (4 - 1)


@pytest.mark.parametrize(
    ("mapping", "where", "error", "match"),
    [
        ({"rleu": PAU}, None, ValueError, "relu.*Received: 'rleu'"),
        ({"relu": PAU()}, None, ValueError, "one layer in all places.*lambda: PAU"),
        ({"relu": "PUA"}, None, ValueError, "PAU.*Received: mapping\\['relu'\\]='PUA'"),
        ({"relu": 3}, None, ValueError, "must be callable"),
        ({3: PAU}, None, ValueError, "keys of `mapping`.*Received: 3"),
        ({"relu": lambda: 3}, None, TypeError, "'hidden_0' must make a Keras layer. Received: 3"),
        ({"relu": lambda: keras.layers.Dense(4)}, None, TypeError, "must make an activation"),
        (["relu"], None, TypeError, r"must be a dict.*Received: mapping=\['relu'\]"),
        ({"relu": PAU}, 3, TypeError, "`where` must be None.*Received: where=3"),
        ({"gelu": PAU}, None, ValueError, r"Wanted: gelu. It has: relu \(2\), linear \(1\)"),
        ({}, None, ValueError, "an empty mapping"),
        ({"relu": PAU}, "hiden_1", ValueError, "hidden_1.*Received: 'hiden_1'"),
        ({"relu": PAU}, ["hidden_*", "head"], ValueError, "Received: 'head'"),
        ({"relu": PAU}, lambda layer: False, ValueError, "fits no layer"),
    ],
)
def test_what_cannot_be_done_is_said(mapping, where, error, match):
    with pytest.raises(error, match=match):
        convert(two_dense(), mapping, where)


def test_only_built_models_with_learnable_activations_are_taken():
    with pytest.raises(TypeError, match="must be a keras.Model"):
        convert(L.Dense(3), {"relu": PAU})
    with pytest.raises(ValueError, match="must be built"):
        freeze(keras.Sequential([L.Dense(3), PAU()]))
    for function in (freeze, simplify):
        with pytest.raises(ValueError, match="must have learnable activations"):
            function(two_dense())
    per_sample = keras.Sequential([keras.Input((4,)), learnable.MetaACONC(2)])
    with pytest.raises(ValueError, match="as MetaACONC does not"):
        simplify(per_sample)
    with pytest.raises(ValueError, match="Received: 0 samples"):
        convert(two_dense(), {"relu": PAU}, inputs=np.ones((0, 4)))
    with pytest.raises(ValueError, match="positive number. Received: tolerance=0"):
        simplify(two_dense(), 0)
    with pytest.raises(ValueError, match="Received: interval="):
        simplify(two_dense(), interval=(1, -1))


# How near it starts.


def test_a_start_that_is_fitted_to_the_inputs_follows_them_beyond_3():
    model = two_dense()
    model.layers[0].kernel.assign(10 * model.layers[0].kernel)
    x = noise(64, 3)
    plain = convert(model, {"relu": lambda: PAU(initial="relu")}, inputs=x).conversion_report
    near = convert(model, {"relu": fitted()}, inputs=x).conversion_report
    # On [-R, R] a rational fit of degrees (7, 6) to relu is off by 0.0013 R at most; the start of
    # degrees (5, 4) has the slope 0.72 far left, where relu has 0.
    scale = np.abs(outputs(model, x)[0]).max()
    assert near.max_difference < 0.02 * scale < plain.max_difference


def mobilenet(samples):
    """MobileNetV2 with the batch norm statistics of its inputs, as a trained one has."""
    keras.utils.set_random_seed(0)
    model = alive(application("MobileNetV2", alpha=0.35)())
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.momentum = 0.0
    model(samples, training=True)
    return model


@pytest.mark.once
def test_a_fitted_start_is_nearer_than_the_plain_one_in_a_deep_network():
    x = noise(32, 32, 32, 3)
    model = mobilenet(x)
    # In half of its places, 17, to be quick.
    plain, near = (
        convert(model, {"relu6": make}, "*_depthwise_relu", inputs=x).conversion_report
        for make in (lambda: PAU(initial="relu6"), fitted(degrees=(5, 4)))
    )
    assert len(plain.changed) == len(near.changed) == 17
    assert near.mean_difference < plain.mean_difference
    assert near.relative_difference < plain.relative_difference


@pytest.mark.parametrize("denominator", "ABCN")
@pytest.mark.parametrize("distribution", ["narrow", "wide", "outlier", "constant"])
def test_a_fitted_start_is_never_worse_on_the_inputs_than_the_plain_one(distribution, denominator):
    random = np.random.default_rng(0)
    inputs = {
        "narrow": random.normal(0.5, 1.5, 10000),
        "wide": random.normal(-4.0, 6.0, 10000),
        "outlier": np.append(random.normal(size=9999), 1000.0),
        "constant": np.zeros(100),
    }[distribution]
    quantiles = np.quantile(inputs, np.linspace(0, 1, 1001))
    interval = inputs.min() - 0.1, inputs.max() + 0.1
    relu6 = keras.activations.relu6
    make, y = fitted(degrees=(5, 4), denominator=denominator), np.clip(quantiles, 0, 6)
    plain, near = (
        np.mean((make(site).curve(quantiles)[0] - y) ** 2)
        for site in (Site("a", relu6, None), Site("a", relu6, interval, quantiles))
    )
    # Up to float32's rounding, of the values and in the sums of the polynomials.
    assert near <= plain * (1 + 1e-6) + 6e-6**2


def test_outliers_where_the_function_or_a_power_overflows_do_not_spoil_the_start():
    x = np.append(np.random.default_rng(0).normal(size=9999), 1e30)
    quantiles = np.quantile(x, np.linspace(0, 1, 1001))
    site = Site("a", keras.activations.exponential, (x.min(), x.max()), quantiles)
    inside = quantiles[1:-1]
    # The fit of degrees (12, 6) on this range is off by less than 1e-4 of e^3.
    near = fitted(degrees=(12, 6))(site).curve(inside)[0]
    np.testing.assert_allclose(near, np.exp(inside), atol=2e-3)


def test_a_trained_network_decides_as_before():
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    model = keras.Sequential(
        [keras.Input((64,)), *(L.Dense(32, "relu") for _ in range(3)), L.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images[:1200], labels[:1200], epochs=10, verbose=0)
    converted = convert(model, {"relu": fitted()}, inputs=images[:300])
    (before,), (after,) = outputs(model, images[1200:]), outputs(converted, images[1200:])
    # Each of the three layers is off by 0.4 % of its range at most.
    assert np.abs(after - before).max() < 0.1 and np.abs(after - before).mean() < 0.005
    assert np.mean(after.argmax(-1) == before.argmax(-1)) > 0.99


# The way back.


def test_what_was_put_in_is_taken_out_again():
    model, x = functional(), {"a": noise(4, 6, 3), "b": noise(4, 6, 3, seed=1)}
    mapping = {name: fitted(degrees=(5, 4)) for name in ("relu", "elu", "gelu", "silu")}
    converted = convert(model, mapping, inputs=x)
    simple = simplify(converted, tolerance=0.05, inputs=x)
    assert not activation_layers(simple)
    assert_same_weights(values(model), values(simple))
    # gelu's two forms, which both are "gelu" now, differ by 5e-4.
    for a, b in zip(outputs(model, x), outputs(simple, x), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_a_unit_becomes_what_it_is_nearest_to_with_the_error_in_the_report():
    def unit(weights, functions=("linear", "relu"), **kwargs):
        return Mixture(functions, initial=weights, **kwargs)

    model = keras.Sequential(
        [
            keras.Input((2,)),
            unit([0.0, 1.0], name="a"),
            L.Dense(2, activation=unit([0.125, 0.875]), name="b"),
            unit([3.0, 0.0], name="c"),
            unit([1.0, 1.0], ("sigmoid", "sigmoid"), name="d"),
        ]
    )
    simple = simplify(model, tolerance=1e-6)
    assert [row.became for row in simple.conversion_report.rows] == [
        "relu",
        "leaky_relu(negative_slope=0.125)",
        "Rescaling",
        "",
    ]
    assert [row.parameters for row in simple.conversion_report.rows] == [-2, -2, -2, 0]
    # 2 sigmoid(x) = 1 + tanh(x/2): no activation of Keras has the value 1 at 0 and this slope.
    assert simple.conversion_report.left[0].note.startswith("nearest is 0.361 x + 1: error 0.18")
    assert_same_outputs(model, simple, noise(4, 2))


def test_of_functions_that_are_the_same_on_the_range_the_one_beyond_it_is_taken():
    units = [SReLU(initial=(0.0, 0.0, 6.0, 0.0)), SReLU(initial=(0.0, 0.0, 0.0, 1.0))]
    for unit, name in zip(units, ("relu6", "relu"), strict=True):
        model = keras.Sequential([keras.Input((3,)), unit])
        simple = simplify(model)
        assert [row.became for row in simple.conversion_report.rows] == [name]
        assert_same_outputs(model, simple, np.float32([[-50, 3, 50]]))
    model = keras.Sequential([keras.Input((3,)), Mixture(("hard_tanh",), initial=[1.0])])
    (row,) = simplify(model, interval=(-0.5, 0.5)).conversion_report.rows
    assert row.became == "hard_tanh"


def test_channels_that_differ_are_left():
    layer = Mixture(sharing="channel")
    model = keras.Sequential([keras.Input((2,)), layer])
    layer.w.assign([[0.0, 1.0], [1.0, 0.0]])  # relu, identity
    simple = simplify(model, tolerance=0.1)
    assert [row.became for row in simple.conversion_report.rows] == [""]
    layer.w.assign([[0.0, 1.0], [0.01, 1.0]])
    simple = simplify(model, tolerance=0.1)
    assert [row.became for row in simple.conversion_report.rows] == ["relu"]


def test_a_report_is_a_table():
    text = str(convert(two_dense(), {"relu": PAU}, inputs=noise(4, 3)).conversion_report)
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "was", "became", "parameters", "note"]
    assert lines[1].split() == ["hidden_0", "relu", "PAU", "+10"]
    assert lines[3] == "2 changed, 0 left"
    assert lines[4].startswith("outputs differ by at most ")


def test_a_report_says_that_outputs_are_not_finite():
    model = keras.Sequential([keras.Input((3,)), L.ReLU()])
    report = convert(model, {"relu": lambda: L.Rescaling(float("nan"))}, inputs=noise(4, 3))
    report = report.conversion_report
    assert np.isnan(report.max_difference) and np.isnan(report.mean_difference)
    assert str(report).splitlines()[-1] == "outputs cannot be compared: some are not finite"


def test_a_report_says_that_the_outputs_are_far_and_what_is_exact():
    model = keras.Sequential([keras.Input((1,)), L.ReLU()])
    x = np.float32([[0.0], [2.0], [4.0], [6.0]])

    def report(make):
        return convert(model, {"relu": make}, inputs=x, batch_size=3).conversion_report

    # The outputs 0, 2, 4, 6 have the standard deviation √5; the differences are 0.2, 0.4, 0.6.
    far = report(lambda: L.Rescaling(1.1))
    np.testing.assert_allclose(far.relative_difference, 0.3 / 5**0.5, rtol=1e-6)
    assert "13.42% of their standard deviation" in str(far)
    assert "APL for relu" in str(far) and "Mixture((site.function,)" in str(far)
    near = report(lambda: L.Rescaling(1.05))
    assert "APL" not in str(near) and "6.71%" in str(near)
    # What it advises is exact, also beyond [-3, 3].
    x = np.linspace(-20, 20, 41, dtype="float32")[:, None]
    for make, name in (
        (APL, "relu"),
        (lambda: SReLU(initial=(0, 0, 6, 0)), "relu6"),
        (lambda site: Mixture((site.function,), initial=[1.0]), "gelu"),
    ):
        model = keras.Sequential([keras.Input((1,)), L.Activation(name)])
        assert convert(model, {name: make}, inputs=x).conversion_report.max_difference < 1e-6
