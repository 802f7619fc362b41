import keras
import numpy as np
import pytest

from keras_learnact import APA
from keras_learnact.observe import activation_layers
from training.squeeze_excitation import SEBlock


def sample():
    return np.random.default_rng(0).normal(size=(3, 5, 4, 8)).astype("float32")


def test_it_is_the_papers_formula():
    block, x = SEBlock(ratio=4), sample()
    y = keras.ops.convert_to_numpy(block(x))
    (w1, b1), (w2, b2) = block.reduce.get_weights(), block.excite.get_weights()
    assert w1.shape == (8, 2) and w2.shape == (2, 8)
    hidden = np.maximum(x.mean(axis=(1, 2)) @ w1 + b1, 0)
    gate = 1 / (1 + np.exp(-(hidden @ w2 + b2)))
    # Sums of 20 numbers in float32.
    np.testing.assert_allclose(y, x * gate[:, None, None, :], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sharing", ["layer", "channel"])
def test_a_learned_gate_trains_and_reloads(sharing, tmp_path):
    block = SEBlock(APA(sharing=sharing), ratio=2)
    model = keras.Sequential([keras.Input((5, 4, 8)), block, keras.layers.GlobalMaxPooling2D()])
    (gate,) = activation_layers(model)
    assert gate is block.activation
    groups = 1 if sharing == "layer" else 8
    assert model.count_params() == 8 * 4 + 4 + 4 * 8 + 8 + 2 * groups
    before, x = gate.parameters(), sample()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(x, np.ones((3, 8), "float32"), verbose=0)
    assert all((gate.parameters()[name] != value).all() for name, value in before.items())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert type(loaded.layers[0].activation) is APA


@pytest.mark.parametrize("ratio", [0, 2.5, True])
def test_wrong_arguments_are_named(ratio):
    with pytest.raises(ValueError, match=f"`ratio`.*ratio={ratio}"):
        SEBlock(ratio=ratio)
    with pytest.raises(ValueError, match=r"known.*input_shape=\(None, 4, 4, None"):
        SEBlock()(keras.Input((4, 4, None)))


def test_few_channels_have_one_hidden_number():
    block = SEBlock(ratio=16)
    assert block(sample()).shape == (3, 5, 4, 8)
    assert block.reduce.units == 1
