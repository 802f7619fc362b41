import io
import itertools
import sys

import keras
import matplotlib.colors
import numpy as np
import pytest
from matplotlib.image import imread

from keras_learnact.layers.base import LearnableActivation, Parameter
from keras_learnact.observe import activation_layers, named_activations
from keras_learnact.plotting import Distribution, input_distributions, plot, snapshot


class Slope(LearnableActivation):
    """`f(x) = slope[0] * x`, slope 2 at the start."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    def parameter_list(self):
        return [Parameter("slope", 1, [2.0])]

    def function(self, x, slope):
        return slope[0] * x


def slopes(count):
    """A model of `count` activations that get the inputs x, 2x, 4x, …"""
    return keras.Sequential([keras.Input((1,))] + [Slope(name=f"slope_{i}") for i in range(count)])


def lines(axes, label):
    """The curves of a panel whose first has this label, as arrays [points, 2]."""
    (first,) = (line for line in axes.lines if line.get_label() == label)
    return [line.get_xydata() for line in axes.lines if line.get_color() == first.get_color()]


def visible_tick_labels(axis):
    low, high = axis.get_view_interval()
    return [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.axison]


def test_a_distribution_knows_its_quantiles_in_any_order_of_size():
    for size in (1e-3, 1.0, 1e30):
        distribution = Distribution()
        distribution.add(size * np.arange(1, 501))
        distribution.add(size * np.arange(501, 1001))
        for number in (1, 2, 100, 500, 999):
            # A bin is 0.8 % of a number wide, and 0.00008 around zero.
            share, expected = (number - 0.5) / 1000, number * size
            assert distribution.quantile(share) == pytest.approx(expected, rel=0.008, abs=8e-5)


def test_the_density_of_uniform_numbers_is_one_over_their_range():
    distribution = Distribution()
    distribution.add(np.linspace(-2, 2, 400001))
    # A bin of 0.5 takes 50000 numbers; the histogram moves at most a bin of 0.016 at its ends.
    density = distribution.density(np.linspace(-2.5, 2.5, 11))
    np.testing.assert_allclose(density, [0] + [0.25] * 8 + [0], atol=0.25 * 0.016 / 0.5)


def test_a_distribution_leaves_nan_out_and_takes_infinities_and_the_whole_float_range():
    distribution = Distribution()
    largest = np.finfo("float32").max
    distribution.add(np.array([np.nan, -np.inf, -largest, 0.0, 1e-45, largest, np.inf], "float32"))
    distribution.add(np.array([np.finfo("float64").max, np.nan]))
    assert distribution.counts.sum() == 7
    assert distribution.counts.nbytes < 200_000


def test_input_distributions_are_those_of_the_numbers_that_arrive():
    seen = input_distributions(slopes(2), np.array([[0.5], [1.0], [1.5]]))
    assert list(seen) == ["slope_0", "slope_1"]
    # The second activation gets 2x, of which the median is 2; a bin there is 0.8 % wide.
    assert [d.quantile(0.5) for d in seen.values()] == pytest.approx([1.0, 2.0], rel=0.008)
    assert [d.counts.sum() for d in seen.values()] == [3, 3]


def test_an_activation_that_sees_only_nan_has_no_distribution():
    assert input_distributions(slopes(1), np.array([[np.nan]])) == {}


def test_a_panel_shows_the_learned_curve_and_the_one_before():
    model = slopes(1)
    before = snapshot(model)
    model.layers[0].slope.assign([[-1.0]])
    (axes,) = plot(model, before=before).axes
    ((learned,), (start,)) = (lines(axes, label) for label in ("learned", "before"))
    np.testing.assert_allclose(learned[:, 1], -learned[:, 0], rtol=1e-6)  # x as float32
    np.testing.assert_allclose(start[:, 1], 2 * start[:, 0], rtol=1e-6)


def test_a_snapshot_keeps_the_past():
    model = slopes(1)
    before = snapshot(model)
    model.layers[0].slope.assign([[7.0]])
    assert before == {"slope_0": {"slope": [[2.0]]}}


def test_a_snapshot_leaves_out_what_has_no_parameters_yet():
    assert list(snapshot([Slope(name="built"), Slope(name="later", sharing="unit")])) == ["built"]


def test_the_curves_are_those_of_the_layer():
    layer = Slope(sharing="channel")
    layer(np.zeros((1, 3), "float32"))
    layer.slope.assign([[1.0], [2.0], [3.0]])
    (axes,) = plot(layer).axes
    curves = lines(axes, "learned")
    np.testing.assert_array_equal([c[:, 1] for c in curves], layer.curve(curves[0][:, 0]))


def test_the_picture_reaches_from_minus_3_to_3_and_to_the_outer_quantiles_of_the_inputs():
    model = slopes(1)
    assert plot(model).axes[0].get_xlim() == (-3, 3)
    assert plot(model, np.array([[0.1], [0.2]])).axes[0].get_xlim() == (-3, 3)
    # 0.1 % of the 10001 numbers are below -9.98 = -10 + 0.02; a bin there is 0.08 wide.
    x = np.linspace(-10, 10, 10001)[:, np.newaxis]
    assert plot(model, x).axes[0].get_xlim() == pytest.approx((-9.98, 9.98), abs=0.08)


def test_the_inputs_are_drawn_where_they_are():
    (axes,) = plot(slopes(1), np.array([[1.0], [2.0]])).axes
    (patch,) = axes.patches
    values, edges, _ = patch.get_data()
    drawn = np.flatnonzero(values)
    # Each of the two numbers fills one bin, or two where a bin of the histogram is cut.
    assert set(np.round(edges[drawn])) == {1, 2} and len(drawn) <= 4


def test_of_many_groups_some_are_drawn_and_the_title_says_so():
    layer = Slope(sharing="channel", name="many")
    layer(np.zeros((1, 100), "float32"))
    layer.slope.assign(np.arange(100.0).reshape(100, 1))
    (axes,) = plot(layer, max_curves=4).axes
    # From the first group to the last.
    assert [c[-1, 1] / 3 for c in lines(axes, "learned")] == pytest.approx([0, 33, 66, 99])
    assert [text.get_text() for text in axes.texts] == ["Slope, 100 groups (4 drawn)"]
    assert axes.get_title() == "many"


def test_there_is_one_panel_for_each_activation_in_balanced_rows():
    figure = plot(slopes(5))
    assert titles(figure) == [f"slope_{i}" for i in range(5)]
    assert {axes.get_subplotspec().get_geometry()[:2] for axes in figure.axes} == {(2, 3)}


def test_a_list_of_activations_is_drawn_with_distributions_of_their_model():
    model = slopes(3)
    seen = input_distributions(model, np.full((4, 1), 10.0))
    layers = activation_layers(model)[1:]
    figure = plot(layers, distributions=seen)
    assert titles(figure) == ["slope_1", "slope_2"]
    # slope_2 gets 4x = 40; a bin there is 0.3 wide.
    assert figure.axes[1].get_xlim()[1] == pytest.approx(40, abs=0.35)


def test_a_dictionary_gives_activations_of_equal_names_their_own():
    model = keras.Sequential([keras.Sequential([Slope(name="act")]) for _ in range(2)])
    named = named_activations(model)
    assert titles(plot(model)) == titles(plot(named)) == ["act", "act_2"]
    assert titles(plot({"act_2": named["act_2"]})) == ["act_2"]


def test_values_that_do_not_exist_leave_a_gap():
    layer = Slope()
    layer.slope.assign([[np.nan]])
    (axes,) = plot(layer).axes
    assert np.isnan(lines(axes, "learned")[0][:, 1]).all()


def test_a_diverged_model_can_still_be_drawn():
    figure = plot(slopes(1), np.array([[np.inf], [-1e30], [np.nan], [0.0]]))
    figure.draw_without_rendering()
    assert figure.axes[0].get_xlim()[1] > 1e38


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_no_texts_overlap(count):
    names = [f"stage_{i}_of_the_residual_network_activation_{i}" for i in range(count)]
    layers = [Slope(name=name, sharing="channel") for name in names]
    model = keras.Sequential([keras.Input((100,)), *layers])
    figure = plot(model, 1e4 * np.ones((1, 100)), snapshot(model))
    figure.draw_without_rendering()
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in (axes for axes in figure.axes if axes.axison):
        texts += [axes.title, *axes.texts]
        texts += visible_tick_labels(axes.xaxis) + visible_tick_labels(axes.yaxis)
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) > 5 * count
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1


def test_a_saved_picture_of_four_panels_is_1200_pixels_wide_and_shows_the_curve():
    file = io.BytesIO()
    plot(slopes(4)).savefig(file, format="png")
    file.seek(0)
    picture = imread(file)[:, :, :3]
    assert picture.shape[1] == 1200
    blue = np.array(matplotlib.colors.to_rgb("#0072B2"))
    assert (np.abs(picture - blue).max(axis=-1) < 0.02).sum() > 1000


def test_wrong_arguments_say_the_way_out():
    model = slopes(1)
    with pytest.raises(ValueError, match="no learnable activation"):
        plot(keras.layers.Dense(2))
    with pytest.raises(ValueError, match="distributions=input_distributions"):
        plot(model.layers, np.ones((1, 1)))
    with pytest.raises(ValueError, match="distributions=input_distributions"):
        plot(model, np.ones((1, 1)), distributions={})
    with pytest.raises(ValueError, match="Take the snapshot of the same model"):
        plot(model, before={"slope_0": {"slope": np.zeros((2, 1))}})
    with pytest.raises(ValueError, match="has no parameters yet"):
        plot(Slope(sharing="channel"))


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        plot(slopes(1))
