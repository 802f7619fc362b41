import gc
import io
import math
import struct
import sys
import weakref

import keras
import numpy as np
import pytest
from matplotlib.image import imread
from tensorboardX.proto.event_pb2 import Event

from keras_learnact import PAU
from keras_learnact.callbacks import ActivationBoard, MetricsBoard
from keras_learnact.layers.base import LearnableActivation, Parameter
from keras_learnact.observe import named_activations
from keras_learnact.plotting import draw, input_distributions, panels, plot, snapshot
from tests.layers.contract_test import every_activation


class Line(LearnableActivation):
    """`f(x) = line[0] + line[1] * x`, starting as `2 x`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    def parameter_list(self):
        return [Parameter("line", 2, [0.0, 2.0])]

    def function(self, x, line):
        return line[0] + line[1] * x


def line_model(**kwargs):
    """Trained by `fit`, it counts its steps: every one adds exactly 1 to line[0]."""
    model = keras.Sequential([keras.Input((1,)), Line(name="act", **kwargs)])
    model.compile(keras.optimizers.SGD(1.0), lambda _, y: -y)
    return model


def fit(model, board, **kwargs):
    # x = 0 leaves line[1] alone. Four steps in an epoch.
    x = np.zeros((4, 1), "float32")
    model.fit(x, x, batch_size=1, callbacks=[board], verbose=0, **kwargs)
    return board


def events(folder):
    """Every value in the event files of a folder, in order: tag -> [(step, value)]."""
    found = {}
    for path in sorted(folder.glob("events*"), key=lambda path: path.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):
            # A record is: its length, a checksum, the event, a checksum.
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4
            for value in event.summary.value:
                content = getattr(value, value.WhichOneof("value"))
                found.setdefault(value.tag, []).append((event.step, content))
    return found


def test_at_the_end_of_every_epoch_the_current_coefficients_are_written(tmp_path):
    fit(line_model(), ActivationBoard(tmp_path), epochs=3)
    found = events(tmp_path / "train")
    assert found["act/line_0"] == [(0, 4.0), (1, 8.0), (2, 12.0)]
    assert found["act/line_1"] == [(0, 2.0), (1, 2.0), (2, 2.0)]
    histograms = [(step, h.min, h.max, h.num) for step, h in found["act/line"]]
    assert histograms == [(0, 2, 4, 2), (1, 2, 8, 2), (2, 2, 12, 2)]


def test_every_so_many_steps_the_current_coefficients_are_written(tmp_path):
    model = line_model()
    fit(model, ActivationBoard(tmp_path, every=3), epochs=2)
    assert events(tmp_path / "train")["act/line_0"] == [(3, 3.0), (6, 6.0)]
    # What the callback looked at did not disturb the training.
    assert model.layers[0].parameters()["line"].tolist() == [[8.0, 2.0]]


def test_several_steps_in_one_execution_are_counted(tmp_path):
    model = line_model()
    model.compile(keras.optimizers.SGD(1.0), lambda _, y: -y, steps_per_execution=2)
    fit(model, ActivationBoard(tmp_path, every=3), epochs=2)
    # Executions end at the steps 2, 4, 6 and 8: those after 3 and 6 are written.
    assert events(tmp_path / "train")["act/line_0"] == [(4, 4.0), (6, 6.0)]


@pytest.mark.parametrize("every", ["epoch", 4])
def test_training_that_goes_on_continues_the_diagrams(tmp_path, every):
    model = line_model()
    fit(model, ActivationBoard(tmp_path, every), epochs=2)
    fit(model, ActivationBoard(tmp_path, every), initial_epoch=2, epochs=3)
    found = events(tmp_path / "train")
    steps = [0, 1, 2] if every == "epoch" else [4, 8, 12]
    assert found["act/line_0"] == list(zip(steps, [4.0, 8.0, 12.0], strict=True))
    assert [step for step, _ in found["epoch_loss"]] == [0, 1, 2]


def written(folder, layers, size=2, **kwargs):
    """What a board writes of a model of these layers, without a change of their parameters."""
    model = keras.Sequential([keras.Input((size,)), *layers])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.zeros((1, size), "float32")
    model.fit(x, x, callbacks=[ActivationBoard(folder, **kwargs)], verbose=0)
    return events(folder / "train")


def test_of_several_groups_the_scalars_are_the_means_and_the_histograms_over_the_groups(tmp_path):
    layer = Line(name="act", sharing="channel")
    layer.build((None, 2))
    layer.line.assign([[1.0, 10.0], [3.0, 30.0]])
    found = written(tmp_path, [layer])
    assert found["act/line_0"] == [(0, 2.0)] and found["act/line_1"] == [(0, 20.0)]
    histograms = [found[f"act/line_{j}/groups"][0][1] for j in range(2)]
    assert [(h.min, h.max, h.num) for h in histograms] == [(1, 3, 2), (10, 30, 2)]
    assert "act/line" not in found


class Many(Line):
    """`f(x) = x`, and many parameters of no use."""

    def __init__(self, count, **kwargs):
        super().__init__(**kwargs)
        self.count = count

    def parameter_list(self):
        return [Parameter("many", self.count, 3.0)]

    def function(self, x, many):
        return x + 0 * many[0]


def test_the_number_of_scalars_is_bounded(tmp_path):
    few, many = Many(16, name="few", sharing="channel"), Many(17, name="many", sharing="channel")
    found = written(tmp_path, [few, many], max_images=0)
    few = {f"few/many_{j}" for j in range(16)}
    assert set(found) == {
        *few,
        *(f"{tag}/groups" for tag in few),
        "many/many",
        "activations",
        "epoch_loss",
        "epoch_learning_rate",
    }
    assert found["many/many"][0][1].num == 2 * 17


def test_losses_metrics_and_the_learning_rate_are_written_for_training_and_validation(tmp_path):
    model = line_model()
    # y is line[0]: 0, 1, 2, 3 before the four steps, 4 after the last; the target is 0.
    model.compile(keras.optimizers.SGD(1.0), lambda _, y: -y, metrics=["mae"])
    x = np.zeros((1, 1), "float32")
    fit(model, ActivationBoard(tmp_path), validation_data=(x, x))
    train, validation = events(tmp_path / "train"), events(tmp_path / "validation")
    assert train["epoch_loss"] == [(0, -1.5)] and train["epoch_mae"] == [(0, 1.5)]
    assert validation == {"epoch_loss": [(0, -4.0)], "epoch_mae": [(0, 4.0)]}
    assert train["epoch_learning_rate"] == [(0, 1.0)]


def picture(image):
    return imread(io.BytesIO(image.encoded_image_string))


def saved(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    file.seek(0)
    return imread(file)[:, :, :3]


def card(model, before, distributions=None, derivative=False):
    """The image of a model's only activation, as wide as TensorBoard's cards."""
    drawn = panels(named_activations(model), before, distributions)
    return saved(draw(drawn, derivative, width=3.5))


def test_the_image_shows_the_activation_with_its_start_and_its_inputs(tmp_path):
    model = line_model()
    before, inputs = snapshot(model), np.linspace(-5, 5, 50)[:, np.newaxis]
    fit(model, ActivationBoard(tmp_path, inputs=inputs))
    ((_, image),) = events(tmp_path / "train")["act/curve"]
    expected = card(model, before, input_distributions(model, inputs))
    np.testing.assert_array_equal(picture(image), expected)


def test_a_snapshot_may_replace_the_start(tmp_path):
    model = line_model()
    before = {"act": {"line": np.array([[-1.0, -1.0]], "float32")}}
    fit(model, ActivationBoard(tmp_path, before=before))
    ((_, image),) = events(tmp_path / "train")["act/curve"]
    np.testing.assert_array_equal(picture(image), card(model, before))


def test_the_image_shows_the_derivative_if_asked_for(tmp_path):
    model = line_model()
    before = snapshot(model)
    fit(model, ActivationBoard(tmp_path, derivative=True))
    ((_, image),) = events(tmp_path / "train")["act/curve"]
    np.testing.assert_array_equal(picture(image), card(model, before, derivative=True))


def test_one_image_shows_all_activations(tmp_path):
    model = keras.Sequential([keras.Input((1,)), Line(name="one"), Line(name="two")])
    before, inputs = snapshot(model), np.linspace(-5, 5, 50)[:, np.newaxis]
    model.compile(keras.optimizers.SGD(1.0), lambda _, y: -y)
    fit(model, ActivationBoard(tmp_path, inputs=inputs))
    found = events(tmp_path / "train")
    ((_, image),) = found["activations"]
    np.testing.assert_array_equal(picture(image), saved(plot(model, inputs, before)))
    assert {"one/curve", "two/curve"} < set(found)


def test_of_many_activations_some_have_an_image_of_their_own(tmp_path):
    layers = [Line(name=f"act_{i}") for i in range(9)]
    found = written(tmp_path, layers, max_images=3)
    assert [tag for tag in found if tag.endswith("curve")] == [f"act_{i}/curve" for i in (0, 4, 8)]
    assert {f"act_{i}/line_0" for i in range(9)} < set(found)
    assert len(found["activations"]) == 1


def test_of_a_data_set_the_same_samples_are_seen_in_every_epoch(tmp_path):
    def batches():
        for size in (1.0, 2.0, 100.0):
            yield np.full((128, 1), size), np.zeros(128)

    fit(line_model(), ActivationBoard(tmp_path, inputs=batches()), epochs=2)
    (_, first), (_, second) = events(tmp_path / "train")["act/curve"]
    # The first 256 samples: the panel goes from -3 to 3, and both pictures show the inputs.
    fit(line_model(), ActivationBoard(tmp_path / "b", inputs=np.repeat([[1.0], [2.0]], 128, 0)))
    ((_, expected),) = events(tmp_path / "b" / "train")["act/curve"]
    np.testing.assert_array_equal(picture(first), picture(expected))
    inputs = np.abs(picture(second)[:, :, :3] - [0.965, 0.869, 0.65]).max(axis=-1) < 0.02
    assert inputs.sum() > 300


@every_activation
@pytest.mark.parametrize("sharing", ["layer", "unit"])
def test_every_activation_is_written(cls, sharing, tmp_path):
    layer = cls(sharing=sharing, name="act")
    inputs = np.linspace(-2, 2, 16).reshape(4, 4)
    found = written(tmp_path, [layer], 4, inputs=inputs, derivative=True)
    for name, values in layer.parameters().items():
        for j, mean in enumerate(values.astype("float64").mean(axis=0)):
            if values.shape[1] <= 16:  # more would be too many pictures
                assert found[f"act/{name}_{j}"] == [(0, np.float32(mean))]
            else:
                assert f"act/{name}_{j}" not in found and f"act/{name}" in found
    assert len(found["act/curve"]) == 1


def test_a_model_is_freed_after_its_training_though_the_callback_lives(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1), PAU(name="act")])
    model.compile("sgd", "mse")
    board = fit(model, ActivationBoard(tmp_path, inputs=np.ones((2, 1))))
    living = [weakref.ref(model), weakref.ref(model.layers[1]), weakref.ref(model.optimizer)]
    del model
    keras.backend.clear_session()
    gc.collect()
    assert [reference() for reference in living] == [None] * 3
    assert board.model is None


def test_a_callback_serves_one_training_after_the_other(tmp_path):
    board = ActivationBoard(tmp_path, inputs=np.ones((1, 1)))
    for _ in range(2):
        fit(line_model(), board)
    assert events(tmp_path / "train")["act/line_0"] == [(0, 4.0), (0, 4.0)]


def test_diverged_training_is_written_without_an_error(tmp_path):
    model = keras.Sequential([keras.Input((3,)), Line(name="act", sharing="channel")])
    model.layers[0].line.assign([[math.inf, 3e38], [-math.inf, 3e38], [1.0, math.nan]])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.ones((1, 3), "float32")
    model.fit(x, x, callbacks=[ActivationBoard(tmp_path, inputs=x)], verbose=0)
    found = events(tmp_path / "train")
    assert math.isnan(found["epoch_loss"][0][1]) and math.isnan(found["act/line_0"][0][1])
    # The gradients are nan, and so are all parameters after the step.
    assert "act/line_1/groups" not in found and len(found["act/curve"]) == 1


def test_infinite_parameters_are_left_out_of_the_histogram(tmp_path):
    model = keras.Sequential([keras.Input((2,)), Line(name="act", sharing="channel")])
    model.layers[0].trainable = False
    model.layers[0].line.assign([[math.inf, 3e38], [-math.inf, 3e38]])
    model.compile("sgd", "mse")
    board = ActivationBoard(tmp_path)
    board.set_model(model)
    board.on_train_begin()
    board.on_epoch_end(0)
    board.on_train_end()
    found = events(tmp_path / "train")
    assert "act/line_0/groups" not in found
    assert found["act/line_1/groups"][0][1].num == 2
    assert math.isnan(found["act/line_0"][0][1])  # inf - inf
    assert found["act/line_1"] == [(0, pytest.approx(3e38))]


def test_a_model_without_learnable_activations_has_a_board_of_its_own(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="with learnable activations.*MetricsBoard"):
        fit(model, ActivationBoard(tmp_path, inputs=np.zeros((1, 1))))
    assert not list(tmp_path.iterdir())
    fit(model, MetricsBoard(tmp_path))
    assert set(events(tmp_path / "train")) == {"epoch_loss", "epoch_learning_rate"}


@pytest.mark.parametrize("inputs", [np.zeros((0, 1)), np.zeros((3, 2, 7, 7))])
def test_wrong_inputs_are_an_error_before_training_begins(tmp_path, inputs):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1), Line()])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Inputs with samples|incompatible|shape"):
        fit(model, ActivationBoard(tmp_path, inputs=inputs))
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="file', which is a file"):
        fit(line_model(), ActivationBoard(tmp_path / "file"))


@pytest.mark.tensorflow
def test_tensorboard_itself_reads_the_files(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(line_model(), ActivationBoard(tmp_path), epochs=2)
    reader = EventAccumulator(str(tmp_path / "train"), size_guidance={"histograms": 0})
    reader.Reload()
    assert [(e.step, e.value) for e in reader.Scalars("act/line_0")] == [(0, 4.0), (1, 8.0)]
    assert [e.histogram_value.num for e in reader.Histograms("act/line")] == [2, 2]
    assert [(e.width, e.height) for e in reader.Images("act/curve")] == [(350, 316)] * 2


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "batch", None])
def test_a_wrong_interval_says_what_is_wanted(tmp_path, every):
    with pytest.raises(ValueError, match='must be "epoch" or a number of training steps'):
        ActivationBoard(tmp_path, every)


@pytest.mark.parametrize("number", [-1, True, 1.5, None])
def test_a_wrong_number_of_images_says_what_is_wanted(tmp_path, number):
    with pytest.raises(ValueError, match="`max_images` must be an integer >= 0"):
        ActivationBoard(tmp_path, max_images=number)


@pytest.mark.parametrize("missing", ["tensorboardX", "matplotlib.figure"])
def test_a_missing_package_is_named_before_training_begins(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install 'keras_learnact\[board\]'"):
        ActivationBoard(tmp_path)
