import io
import itertools
import math
import subprocess
import sys

import keras
import matplotlib.colors
import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from keras_learnact import PAU
from keras_learnact.history import History, Moment
from keras_learnact.layers.base import LearnableActivation, Parameter
from keras_learnact.observe import activation_layers, named_activations
from keras_learnact.plotting import (
    Distribution,
    animate,
    first_inputs,
    input_distributions,
    plot,
    snapshot,
)
from tests.layers.contract_test import built, every_activation

pytestmark = pytest.mark.once


@keras.saving.register_keras_serializable("plotting_test")
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
    labels = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [label for label in labels if label.get_visible()]


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def rows_of(figure):
    """How many panels each row has, from above."""
    lower_edges = [round(axes.get_position().y0, 6) for axes in figure.axes]
    return [lower_edges.count(edge) for edge in sorted(set(lower_edges), reverse=True)]


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


def batches(sizes, number=0.0):
    """Batches `(x, y)`, x of one number that counts the samples."""
    for size in sizes:
        x = np.arange(number, number + size, dtype="float32")[:, np.newaxis]
        number += size
        yield x, np.zeros(size)


class Batches(keras.utils.PyDataset):
    """Batches of 2, as many as there are: `{"a": x, "b": -x}`."""

    num_batches = 3

    def __getitem__(self, index):
        x = np.array([[2.0 * index], [2.0 * index + 1]])
        return {"a": x, "b": -x}, np.zeros(2)


def test_of_a_data_set_the_inputs_of_the_first_samples_are_taken():
    generator = batches([3, 3, 3])
    np.testing.assert_array_equal(first_inputs(generator, 4).ravel(), [0, 1, 2, 3])
    # No more batches were read than hold four samples.
    assert next(generator)[0][0] == 6
    assert len(first_inputs(batches([3, 3]))) == 6

    found = first_inputs(Batches(), 5)
    np.testing.assert_array_equal(found["a"].ravel(), [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(found["b"], -found["a"])
    assert len(first_inputs(Batches())["a"]) == 6


@pytest.mark.tensorflow
def test_a_tensorflow_data_set_is_read_from_its_begin_each_time():
    import tensorflow as tf

    x = np.arange(6.0)
    for contents in (x, (x, x), (x, x, x)):
        data = tf.data.Dataset.from_tensor_slices(contents).batch(4).repeat()
        for _ in range(2):
            np.testing.assert_array_equal(first_inputs(data, 7), [0, 1, 2, 3, 4, 5, 0])


def test_inputs_that_are_arrays_come_back_as_they_are():
    array = np.zeros((1000, 1))
    for inputs in (array, [array, array], {"a": array}):
        assert first_inputs(inputs) is inputs


def test_a_data_set_without_samples_says_so():
    used = batches([2])
    first_inputs(used)
    with pytest.raises(ValueError, match="generator gives its batches once"):
        first_inputs(used)


def test_a_data_set_shows_the_distributions_of_its_inputs():
    seen = input_distributions(slopes(1), batches([2, 2]))["slope_0"]
    assert seen.counts.sum() == 4 and seen.quantile(0.99) == pytest.approx(3, rel=0.01)


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
    assert rows_of(figure) == [3, 2]


@pytest.mark.parametrize(
    "count, rows", [(4, [4]), (6, [3, 3]), (13, [4, 4, 4, 1]), (30, [6] * 5), (52, [8] * 6 + [4])]
)
def test_many_panels_make_a_picture_about_as_wide_as_high(count, rows):
    assert rows_of(plot([Slope(name=f"slope_{i}") for i in range(count)])) == rows


def test_the_user_may_choose_the_columns():
    assert rows_of(plot(slopes(5), columns=2)) == [2, 2, 1]


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


def test_the_derivative_stands_below_its_function():
    model = slopes(2)
    before = snapshot(model)
    model.layers[0].slope.assign([[-1.0]])
    figure = plot(model, 9 * np.ones((1, 1)), before, derivative=True)
    function, below, *_ = figure.axes
    assert function.get_title() == "slope_0" and len(figure.axes) == 4
    assert below.get_position().y1 < function.get_position().y0
    assert below.get_xlim() == function.get_xlim()
    ((learned,), (start,)) = (lines(below, label)[:1] for label in ("learned", "before"))
    # The points are 12 / 600 = 0.02 apart. Of both x, below 16, and both values, below 16 and 32,
    # each is rounded to float32: by 2^-21 and 2^-20 at most.
    np.testing.assert_allclose(learned[:, 1], -1, atol=(2 * 2**-21 + 2 * 2**-21) / 0.02)
    np.testing.assert_allclose(start[:, 1], 2, atol=(2 * 2 * 2**-21 + 2 * 2**-20) / 0.02)
    assert len(plot(model).axes) == 2


@every_activation
def test_every_activation_can_be_drawn_with_its_derivative(cls):
    layer = built(cls, sharing="channel")
    before = snapshot([layer])
    figure = plot([layer], before=before, derivative=True)
    figure.draw_without_rendering()
    for axes in figure.axes:
        drawn = [line[:, 1] for line in lines(axes, "learned")]
        assert len(drawn) == 8 and np.isfinite(drawn).all()


@pytest.mark.parametrize("derivative", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 9, 17])
def test_no_texts_overlap(count, derivative):
    names = [f"stage_{i}_of_the_residual_network_activation_{i}" for i in range(count)]
    layers = [Slope(name=name, sharing="channel") for name in names]
    model = keras.Sequential([keras.Input((100,)), *layers])
    for i, layer in enumerate(layers):
        layer.slope.assign(0 * layer.slope + (-1.2) ** i)
    inputs = 1.23e4 * np.ones((1, 100))
    figure = plot(model, inputs, snapshot(model), derivative=derivative)
    figure.draw_without_rendering()
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        texts += [axes.title, *axes.texts]
        texts += visible_tick_labels(axes.xaxis) + visible_tick_labels(axes.yaxis)
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) > 5 * count
    for (one, box), (other, other_box) in itertools.combinations(zip(texts, boxes, strict=True), 2):
        assert not box.overlaps(other_box), (one, other)
    for text, box in zip(texts, boxes, strict=True):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text


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
    for wrong in ({"max_curves": 0}, {"max_curves": 1.5}, {"columns": 0}):
        ((name, value),) = wrong.items()
        with pytest.raises(ValueError, match=f"Received: {name}={value}"):
            plot(model, **wrong)
        with pytest.raises(ValueError, match=f"Received: {name}={value}"):
            animate("none.npz", "film.gif", **wrong)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'keras_learnact\[plot\]'"):
        plot(slopes(1))


def film(slopes, inputs=None, epochs=None):
    """A history of one activation that had these slopes."""
    moments = []
    for i, slope in enumerate(slopes):
        layer = Slope(name="act")
        layer.slope.assign([[slope]])
        model = keras.Sequential([keras.Input((1,)), layer])
        moments.append(Moment.of(model, inputs and inputs[i], epochs[i] if epochs else i))
    return History(moments, layers={"act": Slope(name="act")})


def frames(path):
    """The frames of a GIF, and how many thousandths of a second each is shown."""
    with Image.open(path) as image:
        for i in range(image.n_frames):
            image.seek(i)
            yield np.asarray(image.convert("RGB")).astype(int), image.info["duration"]


def where(frame, colour):
    """In which rows and columns a frame, without its legend, has this colour, by eye."""
    wanted = np.round(255 * np.array(matplotlib.colors.to_rgb(colour)))
    return np.argwhere(np.abs(frame[:-36] - wanted).max(axis=-1) < 12)


def test_a_film_has_one_frame_for_each_moment_and_its_last_stands_for_a_second(tmp_path):
    animate(film([1.0, 2.0, 3.0], epochs=[0, 5, 10]), tmp_path / "film.gif", fps=4)
    shown = list(frames(tmp_path / "film.gif"))
    assert [duration for _, duration in shown] == [250, 250, 1250]
    assert {frame.shape for frame, _ in shown} == {(552, 600, 3)}
    assert [path.name for path in tmp_path.iterdir()] == ["film.gif"]
    with Image.open(tmp_path / "film.gif") as image:
        assert image.info["loop"] == 0  # for ever


def test_the_axes_of_a_film_stand_still_and_suit_all_its_moments(tmp_path):
    # Drawn from -4 to 4 throughout, where some of the inputs are; so from -12 to 12 in height.
    inputs = [np.array([[0.0]]), np.array([[-4.0], [4.0]]), np.array([[1.0]])]
    animate(film([1.0, -3.0, 3.0], inputs), tmp_path / "film.gif")
    first, second, third = (frame for frame, _ in frames(tmp_path / "film.gif"))
    curves = [where(frame, "#0072B2") for frame in (first, second, third)]
    heights = [np.ptp(curve[:, 0]) for curve in curves]
    widths = [np.ptp(curve[:, 1]) for curve in curves]
    # Exact up to the width of the line, about 3 pixels, and the grey dashes upon the first.
    assert heights[1] == pytest.approx(heights[2], abs=6)
    assert heights[0] == pytest.approx(heights[2] / 3, abs=12)
    assert widths[1] == pytest.approx(widths[2], abs=6)
    # So do the numbers, and the function of the start is there in grey.
    left = np.s_[:, :50]  # the numbers of the vertical axis
    assert (first[left] == second[left]).all() and (second[left] == third[left]).all()
    assert len(where(third, "#666666")) > 300


def test_a_moment_that_diverged_does_not_hide_the_others(tmp_path):
    animate(film([1.0, 2.0, 1e30]), tmp_path / "film.gif")
    shown = [frame for frame, _ in frames(tmp_path / "film.gif")]
    # From -6 to 6 in height: the second function goes from corner to corner of the panel.
    assert np.ptp(where(shown[1], "#0072B2")[:, 0]) > 350
    nothing = film([math.nan] * 2)
    animate(nothing, tmp_path / "nothing.gif")  # nothing to see, and no error


def test_a_film_shows_the_derivatives_where_it_is_asked_to(tmp_path):
    animate(film([1.0, 2.0]), tmp_path / "film.gif", derivative=True)
    frame, _ = next(frames(tmp_path / "film.gif"))
    assert frame.shape == (822, 600, 3)


def test_a_gif_has_the_colours_of_the_picture(tmp_path):
    animate(film([1.0, -2.0], [np.zeros((1, 1))] * 2), tmp_path / "film.gif")
    *_, (frame, _) = frames(tmp_path / "film.gif")
    assert frame[0, 0].tolist() == [255, 255, 255]
    assert len(where(frame, "#0072B2")) > 500 and len(where(frame, "#666666")) > 300
    # What is 35 % of the colour of the inputs and 65 % white.
    assert len(where(frame, "#F6DDA6")) > 1000


def test_a_film_as_mp4_has_the_same_moments(tmp_path):
    import imageio_ffmpeg

    animate(film([1.0, 2.0, 3.0]), tmp_path / "film.mp4", fps=5)
    decode = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(tmp_path / "film.mp4")]
    decode += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(decode, capture_output=True, check=True)
    source = decoded.stderr.decode().partition("Output #0")[0]
    # What browsers and phones play.
    assert all(word in source for word in ("h264", "yuv420p", "600x552", "5 fps")), source
    pictures = np.frombuffer(decoded.stdout, "uint8").reshape(-1, 552, 600, 3).astype(int)
    assert len(pictures) == 3 + 5  # and a second of the last
    heights = [np.ptp(where(picture, "#0072B2")[:, 0]) for picture in pictures]
    # Of lines of the slopes 1, 2 and 3 in one panel; video blurs their ends.
    assert heights[0] / heights[2] == pytest.approx(1 / 3, abs=0.05)
    assert heights[1] / heights[2] == pytest.approx(2 / 3, abs=0.05)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_film_of_a_file_and_of_the_folder_of_a_run(tmp_path):
    film([1.0]).save(tmp_path / "activations.npz")
    for source in (tmp_path, str(tmp_path / "activations.npz")):
        animate(source, tmp_path / "film.gif")
        assert len(list(frames(tmp_path / "film.gif"))) == 1
        (tmp_path / "film.gif").unlink()


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_a_film_that_fails_leaves_what_was_there(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"film.{suffix}"
    path.write_text("before")

    def fails(*arguments):
        raise RuntimeError("no more")

    monkeypatch.setattr("keras_learnact.plotting._draw_panel", fails)
    with pytest.raises(FileExistsError, match="use overwrite=True"):
        animate(film([1.0]), path)
    with pytest.raises(RuntimeError, match="no more"):
        animate(film([1.0]), path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_text() == "before"


def test_wrong_films_say_what_is_wanted(tmp_path):
    history = film([1.0])
    with pytest.raises(ValueError, match=r'end in "\.gif" or "\.mp4".*film\.webm'):
        animate(history, tmp_path / "film.webm")
    for fps in (0, -1, 51, True, "fast", math.nan):
        with pytest.raises(ValueError, match="above 0, up to 50"):
            animate(history, tmp_path / "film.gif", fps=fps)
    with pytest.raises(ValueError, match="0 moments of 1 activations"):
        animate(History([], layers=history.layers), tmp_path / "film.gif")
    with pytest.raises(FileNotFoundError, match="Make the folder first"):
        animate(history, tmp_path / "missing" / "film.gif")
    with pytest.raises(FileNotFoundError, match="There is no history"):
        animate(tmp_path / "activations.npz", tmp_path / "film.gif")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package, suffix", [("PIL", "gif"), ("imageio_ffmpeg", "mp4")])
def test_a_film_without_its_package_says_what_to_install(tmp_path, monkeypatch, package, suffix):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'keras_learnact\[plot\]'"):
        animate(film([1.0]), tmp_path / f"film.{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_ffmpeg_refuses_says_why(tmp_path, monkeypatch):
    import imageio_ffmpeg

    refusing = tmp_path / "ffmpeg"
    refusing.write_text("#!/bin/sh\necho 'Unknown encoder' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(refusing))
    with pytest.raises(RuntimeError, match="Unknown encoder A GIF needs no ffmpeg"):
        animate(film([1.0]), tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == [refusing]


def test_a_notebook_shows_the_figure():
    assert plot([PAU()])._repr_png_().startswith(b"\x89PNG")
