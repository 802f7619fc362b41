"""What `ActivationBoard` writes, in a real TensorBoard, in a real browser."""

import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_learnact import PAU
from keras_learnact.callbacks import ActivationBoard
from tests.browser import chromium, opened

pytestmark = pytest.mark.once

# TensorBoard's own program. Without TensorFlow, which it would import for many seconds and does
# not need: nor does the callback that wrote the files.
PROGRAM = """
import sys
sys.modules["tensorflow"] = None
from tensorboard import main
sys.argv[0] = "tensorboard"
main.run_main()
"""
EPOCHS = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a short training with two activations, one of them with four groups."""
    folder = tmp_path_factory.mktemp("run")
    keras.utils.set_random_seed(0)
    layers = [PAU(name="first"), keras.layers.Dense(4), PAU(name="second", sharing="channel")]
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), *layers])
    model.compile(keras.optimizers.Adam(0.02), "mse", metrics=["mae"])
    x = np.random.default_rng(0).normal(size=(128, 2))
    y = np.repeat(np.sin(2 * x[:, :1]), 4, axis=1)
    board = ActivationBoard(folder, inputs=x, derivative=True)
    model.fit(x, y, epochs=EPOCHS, validation_split=0.25, callbacks=[board], verbose=0)
    return folder


@pytest.fixture(scope="module")
def address(run):
    """Where a TensorBoard serves the run."""
    arguments = ["--logdir", str(run), "--port", "0", "--load_fast=false"]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"http://localhost:\d+/", line):
                    break
            else:
                pytest.fail("TensorBoard ended:\n" + "".join(said))
            yield found[0]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def dashboard(browser, address, where):
    """A page of TensorBoard; tall, because it draws only what is in view."""
    return opened(browser, f"{address}#{where}", size={"width": 1400, "height": 4000})


def coefficients(name):
    return [f"{name}/numerator_{j}" for j in range(6)] + [
        f"{name}/denominator_{k}" for k in range(4)
    ]


def wait_for(page, texts):
    for text in texts:
        page.get_by_text(text, exact=True).first.wait_for()


def size(image):
    """Width and height in pixels of an image; fails for one that does not load."""
    image.wait_for()
    decoded = "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    return tuple(image.evaluate(decoded))


@pytest.mark.parametrize("name", ["first", "second"])
def test_every_coefficient_has_a_diagram(browser, address, name):
    with dashboard(browser, address, f"scalars&tagFilter=^{name}/") as page:
        wait_for(page, coefficients(name))


def test_losses_metrics_and_the_learning_rate_have_diagrams(browser, address):
    with dashboard(browser, address, "scalars&tagFilter=^epoch_") as page:
        wait_for(page, ["epoch_loss", "epoch_mae", "epoch_learning_rate", "train", "validation"])


def test_the_images_are_there_and_as_wide_as_they_are_shown(browser, address):
    # With a filter all tags stand in one group, and that is open.
    with dashboard(browser, address, "images&tagFilter=.") as page:
        wait_for(page, ["activations", "first/curve", "second/curve"])
        together, first, second = (
            page.locator("tf-image-loader", has_text=tag).locator("img").first
            for tag in ("activations", "first/curve", "second/curve")
        )
        # Two columns of 450 pixels; one of 350. Both with the derivatives, and with a legend.
        assert size(together) == (900, 598)
        assert size(first) == size(second) == (350, 473)
        assert first.bounding_box()["width"] == 350  # no pixel of its texts is lost


def test_one_activation_has_a_histogram_of_its_coefficients(browser, address):
    with dashboard(browser, address, "histograms&tagFilter=^first/") as page:
        wait_for(page, ["first/numerator", "first/denominator"])
        page.locator("tf-histogram-loader path").first.wait_for()


def test_several_groups_have_a_histogram_of_each_coefficient(browser, address):
    with dashboard(browser, address, "histograms&tagFilter=^second/") as page:
        wait_for(page, [f"{tag}/groups" for tag in coefficients("second")])


def test_the_time_series_page_shows_all_of_an_activation_together(browser, address):
    with dashboard(browser, address, "timeseries") as page:
        page.get_by_role("combobox", name="Filter tags").fill("^second/(curve|numerator_0)")
        wait_for(page, ["second/curve", "second/numerator_0"])
        for kind in ("image", "scalar", "histogram"):
            page.locator(f"{kind}-card").first.wait_for()
        assert size(page.locator("image-card img:visible").first) == (350, 473)
        assert f"Step {EPOCHS - 1}" in page.locator("image-card:visible").inner_text()
