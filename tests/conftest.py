"""What every test starts from: the same random numbers, and the backend that it needs."""

import hypothesis
import keras
import pytest

# The same examples in every run. `--hypothesis-profile=explore` looks for new ones.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, derandomize=False)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def pytest_collection_modifyitems(items):
    if keras.backend.backend() == "tensorflow":
        return
    skip = pytest.mark.skip(reason=f"needs TensorFlow, runs on {keras.backend.backend()}")
    for item in items:
        if item.get_closest_marker("tensorflow"):
            item.add_marker(skip)
