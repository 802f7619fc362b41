import dataclasses

import pytest
from absl import flags

from training.command_line import define_flags, from_flags, to_flags
from training.config import ImageConfig, RegressionConfig, UserError, quick


def parsed(*arguments, config_class=ImageConfig):
    values = flags.FlagValues()
    define_flags(config_class, values)
    values(["program", *arguments])
    return from_flags(config_class, values)


@pytest.fixture
def preset(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(
        "from training.config import ImageConfig\n"
        'config = ImageConfig(network="vgg8", epochs=50, seed=4)\n'
    )
    return f"--config={path}"


def test_without_flags_a_program_has_its_defaults():
    assert parsed() == (ImageConfig(), "runs/digits_lenet_pau_seed0")


@pytest.mark.parametrize("config_class", [ImageConfig, RegressionConfig])
def test_every_program_has_the_same_words(config_class):
    values = flags.FlagValues()
    define_flags(config_class, values)
    # The list.
    words = (
        "dataset network activation optimizer learning_rate epochs batch_size seed workdir config "
        "quick data_dir download"
    )
    assert set(words.split()) <= set(values)


def test_a_flag_has_the_type_of_its_field():
    config, workdir = parsed(
        "--learning_rate=0.5",
        "--decay_epochs=30,60",
        '--activation_args={"sharing": 2}',
        "--clip_norm=5",
        "--nodownload",
        "--workdir=here",
    )
    assert (config.learning_rate, config.decay_epochs, config.clip_norm) == (0.5, (30, 60), 5.0)
    assert config.activation_args == {"sharing": 2}
    assert config.download is False
    assert workdir == "here"


def test_a_preset_is_stronger_than_the_defaults_and_weaker_than_flags(preset):
    config, _ = parsed(preset, "--epochs=7")
    assert (config.network, config.epochs, config.seed) == ("vgg8", 7, 4)


def test_quick_is_stronger_than_a_preset_and_weaker_than_flags(preset):
    config, _ = parsed(preset, "--quick", "--batch_size=3")
    assert (config.epochs, config.batch_size, config.examples) == (1, 3, 8)


def test_the_default_workdir_names_the_preset_the_seed_and_quick(preset):
    assert parsed(preset)[1] == "runs/small_seed4"
    assert parsed(preset, "--quick", "--seed=1")[1] == "runs/small_seed1_quick"


def test_every_field_has_a_flag_that_leaves_it_alone_when_it_is_not_given():
    config, _ = parsed("--epochs=3", config_class=RegressionConfig)
    assert config == dataclasses.replace(RegressionConfig(), epochs=3)


@pytest.mark.parametrize("text", ["sharing=2", "[1]"])
def test_activation_args_must_be_a_json_object(text):
    with pytest.raises(UserError, match="must be a JSON object.*Received"):
        parsed(f"--activation_args={text}")


@pytest.mark.parametrize(
    "config",
    [
        ImageConfig(),
        ImageConfig(activation_args={"noise": 0.1, "sharing": "channel"}, clip_norm=5.0, seed=3),
        ImageConfig(schedule="steps", decay_epochs=(30, 60), width=0.5),
        quick(ImageConfig(network="vgg8")),
        RegressionConfig(hidden=(20, 20), learning_rate=1e-5),
    ],
)
def test_the_flags_of_a_configuration_give_it_back(config):
    given = to_flags(config)
    assert parsed(*given, config_class=type(config))[0] == config


def test_folders_are_not_part_of_the_flags_that_repeat_a_run():
    given = ["--dataset=digits", "--network=lenet", "--activation=pau", "--seed=0"]
    assert to_flags(ImageConfig(data_dir="/elsewhere", download=True)) == given
