"""Every preset: it loads, opens with its claim and its command, and names what exists.

`.ci/run` trains two steps of each.
"""

import ast
from pathlib import Path

import pytest

from training import activations, config, datasets, imagenet, networks, optimizers
from training.table import PROGRAMS

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "training" / "configs").glob("*.py"))


def program(preset):
    return "training.search" if type(preset) is config.SearchConfig else PROGRAMS[type(preset)]


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_opens_with_its_claim_and_its_command(path):
    preset = config.load_preset(str(path), config.Config)
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert "Claim: " in docstring and "Source: " in docstring
    command = f"python -m {program(preset)} --config={path.relative_to(ROOT)}"
    assert docstring.endswith(command)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_names_what_there_is(path):
    preset = config.load_preset(str(path), config.Config)
    activations.create(preset.activation, **preset.activation_args)
    optimizers.build(preset, steps_per_epoch=10)
    if isinstance(preset, config.ImageConfig):
        assert preset.network in networks.NETWORKS
        # So that --quick runs without it.
        assert preset.dataset == "digits" or preset.dataset in datasets.RECIPES
    else:
        assert len(datasets.load_table(preset.dataset)) == 2


def test_the_papers_recipes_are_all_there():
    # The issue's and EXPERIMENTS' rows.
    wanted = (
        "mnist_lenet_pau mnist_vgg8_pau fashion_mnist_lenet_pau fashion_mnist_vgg8_pau "
        "cifar10_vgg8_pau cifar10_mobilenetv2_pau cifar10_resnet101_pau cifar10_densenet121_pau "
        "imagenet_mobilenetv2_pau mnist_mlp_deu mnist_cnn_deu cifar10_resnet18_deu diabetes_mlp_deu"
    )
    assert set(wanted.split()) <= {path.stem for path in PRESETS}


def test_imagenet_has_a_recipe():
    assert imagenet.NAME in datasets.RECIPES
