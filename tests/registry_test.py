"""The table of activations, held against the layers themselves."""

import re

import keras
import numpy as np
import pytest

import keras_learnact as kla
from keras_learnact import registry
from tests.layers.contract_test import ACTIVATIONS, every_activation

TABLE = kla.activations()


def test_it_has_every_layer_once():
    layers = {
        name
        for name in kla.layers.__all__
        if issubclass(getattr(kla, name), keras.layers.Layer) and name != "LearnableActivation"
    }
    assert len(TABLE) == len(layers) and {a.name for a in TABLE} == layers


def test_every_row_says_its_formula_and_its_source():
    for activation in TABLE:
        assert re.search("=|c_i", activation.formula), activation
        if activation.name != "Expression":
            assert re.fullmatch(r".+: .+\b(19|20)\d\d\b.*", activation.source), activation


@every_activation
def test_a_row_says_what_the_layer_is(cls):
    row, layer = TABLE[cls.__name__], cls(sharing="layer")
    assert sum(row.parameters.values()) == layer.count_params() - _not_parameters(layer)
    assert row.starts_as == (cls.starts_as or "random")
    assert row.kernel == ("has no compiled kernel" not in str(layer.kernel(False)))


def test_a_look_at_the_table_changes_no_random_number_and_no_name():
    def first():
        keras.utils.set_random_seed(0)
        keras.backend.clear_session()

    first()
    layer = keras.layers.Dense(3)
    layer.build((None, 3))
    expected = kla.PAU().name, keras.ops.convert_to_numpy(layer.kernel)
    first()
    kla.activations()
    layer = keras.layers.Dense(3)
    layer.build((None, 3))
    assert kla.PAU().name == expected[0]
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer.kernel), expected[1])


def _not_parameters(layer):
    """Weights beside those of the formula, as `frozen` of SReLU."""
    own = {p.name for p in layer.parameter_list()}
    return sum(1 for weight in layer.weights if weight.name not in own)


def test_costs_are_positive_ratios_of_activations_that_there_are():
    measured, about = registry._costs()
    assert measured and "float32" in about
    assert set(measured) <= {a.name for a in TABLE}
    assert all(ratio > 0 for pair in measured.values() for ratio in pair)


def test_it_is_read_by_name_and_by_number():
    assert TABLE["PAU"].parameters == {"numerator": 6, "denominator": 4}
    assert TABLE[0] is next(iter(TABLE))
    assert "PAU" in TABLE and TABLE[0] in TABLE and "pau" not in TABLE
    with pytest.raises(KeyError, match="Received: 'pau'. There are .*PAU"):
        TABLE["pau"]


def test_the_text_fits_a_window_and_names_all(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = str(TABLE)
    assert max(map(len, text.splitlines()[:-2])) <= 120
    for cls in ACTIVATIONS:
        assert re.search(rf"^ {cls.__name__}\b", text, re.MULTILINE)
    assert "max(0, hinges_s − x)" in text
    for activation in TABLE:
        if activation.forward is not None:  # no cell is cut
            assert {f"{activation.forward:.2f}", f"{activation.forward_backward:.2f}"} <= set(
                re.findall(r"\d+\.\d\d\b", text)
            )


def test_a_notebook_shows_it_without_markup_of_the_formulas():
    shown = TABLE._repr_html_()
    assert shown.count("<tr>") == 1 + len(TABLE)
    assert "f(x) = x     for x &gt;= 0" in shown
