"""Every table: it says its command, has the runs that its paper has, and can be built."""

import ast
import collections
import dataclasses
import re
import types

import keras
import numpy as np
import pytest

from training import activations, datasets, networks, optimizers
from training import table as tables
from training.aggregate import Aggregate
from training.config import ImageConfig, RegressionConfig, UserError
from training.image_classification import new_network

TABLES = {name: tables.load(name) for name in tables.names()}
TRAINED = {name: table for name, table in TABLES.items() if not isinstance(table, Aggregate)}
FULL = {name for name in TRAINED if not name.endswith("_reduced")}


def docstring(name):
    return ast.get_docstring(ast.parse((tables.FOLDER / f"{name}.py").read_text()))


def columns(name):
    return [column.label for column in TABLES[name].columns]


def cells(name):
    """How often each (column, row) is run."""
    runs = TABLES[name].runs()
    return collections.Counter((run.column.label, run.row.label) for run in runs)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_its_command_its_claim_and_whose_that_is(name):
    table = TABLES[name]
    command = docstring(name).splitlines()[-1].strip()
    assert re.fullmatch(rf"python -m training.sweep --table={name}( --\S+)*", command), command
    assert all([table.title, table.claim, table.source, table.remarks])
    # One that reads images which are not in scikit-learn says how they come; pau_table4_top5 reads
    # nothing but results.
    if name in TRAINED and name != "pau_table4_top5":
        names = {run.config.dataset for run in table.runs()}
        assert ("--download" in command) == (
            not names <= {"digits", "diabetes", "sum_of_sines", "signal"}
        )


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("pau_table2", 2 * 2 * 15 * 5),  # data sets, networks, activations, seeds
        ("pau_table3", (4 * 15 - 1) * 5),  # DenseNet121 has no Maxout
        ("pau_table4", 13),  # neither Maxout nor RPAU, one seed
        ("pau_table4_top5", 13),
        ("pau_fig4", 3 * 15),  # networks, activations, one seed
        ("lenet_pruning", 3 * 5),
        ("lenet_pruning_reduced", 3 * 3),
        ("deu_mnist", 2 * 2 * 4 * 5),
        ("deu_cifar10", 4 * 5),
        ("deu_diabetes", 4 * 5),
        ("deu_compactness", 4 * 3 * 5),  # widths, activations, seeds
        ("ditac_toy", 2 * 6 * 5),
        ("ditac_toy_reduced", 2 * 5),
        ("digits", 15 * 5),
        ("lenet_reduced", 2 * 15 * 3),
        ("deu_mlp_reduced", 2 * 4 * 3),
        ("deu_compactness_reduced", 4 * 3 * 2),
        ("apa_cifar10_lt", 5 * 5),
        ("apa_cifar10_lt_reduced", 4),
    ],
)
def test_a_table_has_as_many_runs_as_its_paper_and_its_docstring_say(name, runs):
    table = TABLES[name]
    assert len(table.runs()) == runs
    assert f"\n{runs} runs" in docstring(name)
    # No run is another one's: each has a folder and a recipe of its own.
    assert len({run.folder for run in table.runs()}) == runs
    assert len({repr(run.config) for run in table.runs()}) == runs


def test_two_runs_of_one_folder_are_an_error():
    rows = (tables.Row("pau"), tables.Row("pau", {"sharing": "channel"}))
    with pytest.raises(UserError, match="more than once: digits_lenet/pau/seed0, .*another label"):
        dataclasses.replace(TABLES["digits"], rows=rows)


def test_every_table_is_in_the_list_above():
    (mark,) = test_a_table_has_as_many_runs_as_its_paper_and_its_docstring_say.pytestmark
    assert {name for name, _ in mark.args[1]} == set(TRAINED)


def test_the_pau_papers_activations_are_all_there():
    wanted = {
        *("relu", "relu6", "leaky_relu", "rrelu", "elu", "celu", "swish", "prelu", "maxout"),
        *("mixture", "slaf", "apl", "srelu", "pau", "rpau"),
    }
    for name, seeds in (("pau_table2", 5), ("pau_table3", 5), ("digits", 5), ("lenet_reduced", 3)):
        found = cells(name)
        assert {row for _, row in found} == wanted
        assert set(found.values()) == {seeds}
    assert ("CIFAR-10, DenseNet121", "maxout") not in cells("pau_table3")
    assert ("CIFAR-10, VGG-8", "maxout") in cells("pau_table3")
    assert wanted - {row for _, row in cells("pau_table4")} == {"maxout", "rpau"}


def test_the_networks_and_data_sets_of_each_table():
    def pairs(name):
        return {(c.config.dataset, c.config.network) for c in TABLES[name].columns}

    mnists = ("mnist", "fashion_mnist")
    assert pairs("pau_table2") == {(data, net) for data in mnists for net in ("vgg8", "lenet")}
    assert pairs("pau_table3") == {
        ("cifar10", network) for network in ("vgg8", "mobilenet_v2", "resnet101", "densenet121")
    }
    assert pairs("pau_table4") == {("imagenet2012", "mobilenet_v2_imagenet")}
    assert pairs("deu_mnist") == {(data, net) for data in mnists for net in ("mlp", "cnn")}
    assert pairs("deu_cifar10") == {("cifar10", "resnet18")}
    assert pairs("apa_cifar10_lt") == {("cifar10", "resnet32")}
    assert pairs("digits") == {("digits", "lenet")}
    assert pairs("lenet_reduced") == {(data, "lenet") for data in mnists}
    assert pairs("deu_mlp_reduced") == {(data, "mlp") for data in mnists}
    assert pairs("deu_compactness") == pairs("deu_compactness_reduced") == {("mnist", "mlp")}


def test_the_recipes_are_the_papers():
    def recipe(name, *fields):
        configs = {run.config for run in map(hashable, TABLES[name].runs())}
        return {tuple(getattr(config, field) for field in fields) for config in configs}

    def hashable(run):
        config = dataclasses.replace(run.config, activation_args=())
        return types.SimpleNamespace(config=config)

    fields = ("epochs", "optimizer", "learning_rate", "momentum", "weight_decay", "clip_norm")
    assert recipe("pau_table2", *fields) == {(100, "adam", 0.002, 0.0, 0.0, 5.0)}
    assert recipe("pau_table3", *fields) == {(400, "sgd", 0.1, 0.9, 5e-4, None)}
    assert recipe("pau_table4", "epochs", "decay_epochs", "decay") == {(100, (30, 60, 90), 0.1)}
    assert recipe("deu_cifar10", "batch_size") == {(128,)}
    assert recipe("deu_diabetes", "folds") == {(3,)}
    assert recipe("apa_cifar10_lt", *fields[:-1], "imbalance", "batch_size", "schedule") == {
        (500, "sgd", 0.2, 0.9, 1e-3, 100, 512, "cosine")
    }
    assert recipe("digits", "epochs") == {(20,)}


def test_rpau_has_more_noise_in_resnet101():
    noise = {
        run.column.label: activations.create("rpau", **run.config.activation_args).noise
        for run in TABLES["pau_table3"].runs()
        if run.row.label == "rpau"
    }
    assert noise == {
        "CIFAR-10, VGG-8": 0.01,
        "CIFAR-10, MobileNetV2": 0.01,
        "CIFAR-10, ResNet101": 0.1,
        "CIFAR-10, DenseNet121": 0.01,
    }


@pytest.mark.parametrize(
    ("reduced", "full", "fields"),
    [
        ("lenet_reduced", "pau_table2", {}),
        ("deu_mlp_reduced", "deu_mnist", {}),
        ("deu_compactness_reduced", "deu_compactness", {}),
        ("lenet_pruning_reduced", "lenet_pruning", {}),
        (
            "apa_cifar10_lt_reduced",
            "apa_cifar10_lt",
            {"epochs": 5, "batch_size": 64, "learning_rate": 0.05},
        ),
    ],
)
def test_a_reduced_table_is_shorter_and_says_so(reduced, full, fields):
    table, whole = TABLES[reduced], TABLES[full]
    for row in whole.rows:
        assert row in table.rows or f"no {row.label}" in table.remarks.lower()
    assert set(columns(reduced)) <= set(columns(full))
    assert set(table.seeds) < set(whole.seeds)
    by_label = {column.label: column for column in whole.columns}
    for column in table.columns:
        examples = column.config.examples
        shorter = {"epochs": 2, "examples": examples, **fields}
        assert column.config == dataclasses.replace(by_label[column.label].config, **shorter)
        assert f"{examples or 60_000:,}" in table.remarks
        assert not column.paper  # a published number is of another number of epochs
    assert "reduced" in table.title
    assert table.remarks.startswith(f"Reduced: {shorter['epochs']} epochs")
    assert f"ot to be mixed with {full}." in table.remarks


def test_the_reduced_toys_have_fewer_folds_and_say_so():
    table, whole = TABLES["ditac_toy_reduced"], TABLES["ditac_toy"]
    assert [row.label for row in whole.rows if row not in table.rows] == ["deu"]
    shorter = {"Sum of sines, MLP 50": {"epochs": 150, "folds": 2}, "Signal, MLP 50": {"folds": 2}}
    assert {column.label: column.config for column in table.columns} == {
        column.label: dataclasses.replace(column.config, **shorter[column.label])
        for column in whole.columns
    }
    assert table.seeds == (0,) and "reduced" in table.title
    assert table.remarks.startswith("Reduced: 2 folds of 3, one seed of 5, 150 epochs of 300 of")
    assert "no DEU" in table.remarks and "ot to be mixed with ditac_toy." in table.remarks


def test_every_reduced_table_is_tested_above():
    (mark,) = test_a_reduced_table_is_shorter_and_says_so.pytestmark
    tested = {reduced for reduced, *_ in mark.args[1]} | {"ditac_toy_reduced"}
    assert tested == set(TRAINED) - FULL


@pytest.mark.parametrize("name", TRAINED)
def test_every_run_names_what_there_is(name):
    for run in TRAINED[name].runs():
        config = run.config
        assert (config.activation, config.seed) == (run.row.activation, run.seed)
        optimizers.build(config, steps_per_epoch=10)
        if isinstance(config, ImageConfig):
            assert config.dataset == "digits" or config.dataset in datasets.RECIPES
        else:
            assert len(datasets.load_table(config.dataset)) == 2


# Of 400 MB and more, or minutes to build: networks_test.py counts their parameters.
LARGE = {"resnet101", "densenet121", "mobilenet_v2", "mobilenet_v2_imagenet", "resnet18"}


@pytest.fixture
def no_random_numbers(monkeypatch):
    def zeros(self, shape, dtype=None):
        return np.zeros(shape, dtype)

    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", zeros)


def parameters(config):
    if isinstance(config, RegressionConfig):
        inputs = datasets.load_table(config.dataset)[0].shape[1]
        unit = networks.Unit(config.activation, **config.activation_args)
        return networks.parameter_count(networks.regression(inputs, config.hidden, unit))
    if config.dataset == "digits":
        images = datasets.load_images("digits", "nowhere")
    else:
        images = datasets.generated_images(config.dataset, 1)
    return networks.parameter_count(new_network(config, images))


def counted(name, rows):
    """The parameters of these rows in each column with a small network."""
    return {
        (run.column.label, run.row.label): parameters(run.config)
        for run in TABLES[name].runs()
        if run.seed == 0 and run.row.label in rows and run.config.network not in LARGE
    }


def test_every_network_of_digits_is_built_with_its_papers_parameters(no_random_numbers):
    found = counted("digits", activations.registry())
    # LeNet has 61,706 and four activations of 6, 16, 120 and 84 features.
    fixed = "relu relu6 leaky_relu rrelu elu celu swish".split()
    learned = {
        "prelu": 4 * 1,
        # The layers before an activation once more: the larger of each two features goes on.
        "maxout": 156 + 2_416 + 48_120 + 10_164,
        "mixture": 4 * 2,
        "slaf": 4 * 4,
        # 2 hinges and 2 slopes for every unit of 28×28×6, 10×10×16, 120 and 84.
        "apl": 4 * (4_704 + 1_600 + 120 + 84),
        "srelu": 4 * (6 + 16 + 120 + 84),
        "pau": 4 * 10,
        "rpau": 4 * 10,
    }
    assert {row: count - 61_706 for (_, row), count in found.items()} == {
        **dict.fromkeys(fixed, 0),
        **learned,
    }


def test_the_papers_networks_with_and_without_pau(no_random_numbers):
    assert counted("pau_table2", {"relu", "pau"}) == {
        (f"{images}, {network}", row): count
        for images in ("MNIST", "Fashion-MNIST")
        for network, row, count in (
            ("LeNet", "relu", 61_706),
            ("LeNet", "pau", 61_746),
            ("VGG-8", "relu", 9_224_458),
            ("VGG-8", "pau", 9_224_508),
        )
    }
    found = counted("pau_table3", {"relu", "pau", "maxout"})
    assert found == {
        ("CIFAR-10, VGG-8", "relu"): 3_918_858,
        ("CIFAR-10, VGG-8", "pau"): 3_918_908,
        ("CIFAR-10, VGG-8", "maxout"): 7_829_642,
    }


def test_the_deu_papers_networks(no_random_numbers):
    found = counted("deu_mnist", {"relu", "deu"})
    for images in ("MNIST", "Fashion-MNIST"):
        assert found[f"{images}, MLP 1024-512", "relu"] == 1_333_770
        assert found[f"{images}, MLP 1024-512", "deu"] == 1_333_770 + 7_680
        # 32 * (9 + 1), 16 * (9 * 32 + 1), 14 * 14 * 16 * 10 + 10
        assert found[f"{images}, CNN 32-16", "relu"] == 320 + 4_624 + 31_370
    hidden = counted("deu_diabetes", {"relu", "maxout", "selu", "deu"})
    # 10 inputs, 50 hidden, one output; Maxout has 50 more of 11; DEU 5 for each hidden one.
    assert list(hidden.values()) == [601, 601 + 550, 601, 601 + 250]


def test_the_perceptron_in_four_widths(no_random_numbers):
    found = counted("deu_compactness", {"relu", "deu", "pau"})
    for label, first, second in (("1/8", 128, 64), ("1/4", 256, 128), ("1/2", 512, 256)):
        relu = 785 * first + (first + 1) * second + (second + 1) * 10
        assert found[f"MNIST, MLP × {label}", "relu"] == relu
        assert found[f"MNIST, MLP × {label}", "deu"] == relu + 5 * (first + second)
        assert found[f"MNIST, MLP × {label}", "pau"] == relu + 20
    assert found["MNIST, MLP × 1", "relu"] == 1_333_770
    # 109,386: a twelfth of the whole network, so the smallest DEU network is really smaller.
    assert found["MNIST, MLP × 1/8", "deu"] == 109_386 + 960


def test_what_always_predicting_the_mean_gives_is_as_the_remarks_say():
    for name, text in (("deu_diabetes", "RMSE of 77."), ("ditac_toy", "RMSE of 0.35.")):
        _, targets = datasets.load_table(TABLES[name].columns[0].config.dataset)
        assert f"RMSE of {float(np.std(targets)):.2g}." == text
        assert text in TABLES[name].remarks
