import dataclasses

import pytest

from training.config import (
    ImageConfig,
    RegressionConfig,
    UserError,
    differences,
    load_preset,
    quick,
)


def test_quick_is_two_small_batches():
    config = quick(ImageConfig(epochs=400, batch_size=64, network="vgg8"))
    assert (config.epochs, config.batch_size, config.examples) == (1, 4, 8)
    assert config.quick and config.network == "vgg8"


def test_quick_makes_nothing_larger():
    config = quick(ImageConfig(epochs=1, batch_size=3))
    assert (config.epochs, config.batch_size, config.examples) == (1, 3, 6)


def test_configurations_differ_in_the_fields_that_change_a_result():
    config = ImageConfig(decay_epochs=(1, 2))
    there = dataclasses.asdict(dataclasses.replace(config, seed=3, data_dir="/elsewhere"))
    here = dataclasses.asdict(config)
    assert differences(here, here, ImageConfig) == []
    assert differences(here, there, ImageConfig) == ["seed=3 there and 0 here"]


def test_a_run_that_is_older_than_a_field_did_what_the_field_does_by_default():
    here = dataclasses.asdict(ImageConfig())
    there = {name: value for name, value in here.items() if name != "width"}
    assert differences(here, there, ImageConfig) == []
    wider = dataclasses.asdict(ImageConfig(width=2.0))
    assert differences(wider, there, ImageConfig) == ["width=1.0 there and 2.0 here"]


def test_a_preset_is_a_file_with_a_config(tmp_path):
    path = tmp_path / "preset.py"
    path.write_text("from training.config import ImageConfig\nconfig = ImageConfig(epochs=3)\n")
    assert load_preset(str(path), ImageConfig).epochs == 3


def test_a_preset_of_another_program_or_none_is_an_error(tmp_path):
    path = tmp_path / "preset.py"
    path.write_text("from training.config import ImageConfig\nconfig = ImageConfig()\n")
    with pytest.raises(UserError, match=r"RegressionConfig.*where config is ImageConfig"):
        load_preset(str(path), RegressionConfig)
    with pytest.raises(UserError, match="Received: nowhere.py"):
        load_preset("nowhere.py", ImageConfig)
