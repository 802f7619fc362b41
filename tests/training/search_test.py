import csv
import dataclasses
import functools
import json
import logging
import math
import random
import statistics
import subprocess
import sys

import numpy as np
import pytest

import keras_learnact as kla
from training import datasets, grammar, image_classification, search, search_results
from training.config import SearchConfig, UserError, load_preset, quick

ALL = grammar.Grammar()
# Known functions are only the half of this population that begins.
SMALL = SearchConfig(population=8, generations=3)
# Quick: on TensorFlow the steps are not compiled, which would take longer than all 2 of a training.
REAL = SearchConfig(
    network="mlp",
    width=0.02,
    examples=40,
    epochs=1,
    batch_size=16,
    quick=True,
    population=4,
    generations=1,
    repeats=1,
    check_repeats=2,
    operations="add,multiply,maximum,tanh,exp",
    constants=1,
)


class Killed(BaseException):
    """What kill -9 is: nothing that follows in the process runs."""


def eelu():
    return ALL.tree("multiply(negative(x), erf(exp(negative(x))))")


# The grammar


def test_the_papers_function_is_in_the_grammar():
    assert ALL.formula(eelu()) == "-x*erf(exp(-x))"
    assert len(eelu()) == 7  # *, -, x, erf, exp, -, x


def test_the_known_functions_are_what_they_are_called():
    x = search.GRID
    values = [search.function_values(ALL.formula(tree))[0] for tree in ALL.known()]
    known = dict(zip(grammar.KNOWN, values, strict=True))
    sigmoid = 1 / (1 + np.exp(-x))
    for name, wanted in {
        "identity": x,
        "ReLU": np.maximum(x, 0),
        "SiLU": x * sigmoid,
        "softplus": np.log1p(np.exp(x)),
        "near GELU": x / (1 + np.exp(-2 * x)),
        "Mish": x * np.tanh(np.log1p(np.exp(x))),
        "sine": np.sin(x),
        "tanh": np.tanh(x),
    }.items():
        # float32 against float64
        np.testing.assert_allclose(known[name], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "tree",
    [
        "subtract(x, x)",
        "divide(x, x)",
        "multiply(x, zero)",
        "divide(one, subtract(x, x))",
        "subtract(x, absolute(divide(softplus(x), subtract(x, x))))",  # x - ∞ · |softplus(x)|
    ],
)
def test_a_tree_in_which_x_falls_out_or_something_is_infinite_is_no_function(tree):
    assert ALL.formula(ALL.tree(tree)) is None


def test_a_tree_of_constants_is_of_the_wrong_type():
    with pytest.raises(TypeError, match="does not match the expected"):
        ALL.tree("exp(one)")


def test_trainable_constants_are_named_in_the_order_in_which_they_come():
    two = grammar.Grammar(constants=2)
    assert "x" not in grammar.LETTERS
    assert two.formula(two.tree("add(multiply(x, b), a)")) == "a*x + b"
    assert two.formula(two.tree("multiply(tanh(multiply(x, b)), b)")) == "a*tanh(a*x)"


def test_what_is_bred_is_of_the_grammar_and_can_be_read_by_the_layer():
    language = grammar.Grammar(constants=2)
    formulas = set()
    with grammar.seeded(0):
        trees = [language.random() for _ in range(20)]
        for _ in range(200):
            child = language.child(*random.sample(trees, 2))
            # Reading the text checks the type of every part.
            assert language.tree(str(child)) == child
            if len(child) <= language.largest and (formula := language.formula(child)):
                formulas.add(formula)
                trees.append(child)
    assert len(formulas) > 50
    values = [search.function_values(formula) for formula in formulas if "**" not in formula]
    assert not any(np.isnan(v).any() for v in values)


def test_a_child_leaves_its_parents_alone_and_is_often_another():
    language, parents = ALL, [eelu(), ALL.tree("maximum(x, tanh(x))")]
    before = [str(parent) for parent in parents]
    with grammar.seeded(1):
        children = {str(language.child(*parents)) for _ in range(50)}
    assert [str(parent) for parent in parents] == before
    assert len(children) > 20


def test_breeding_is_the_same_in_every_process():
    program = (
        "from training import grammar\n"
        "language, trees = grammar.Grammar(), []\n"
        "with grammar.seeded(3, 1):\n"
        "    trees = [language.random() for _ in range(10)]\n"
        "    trees += [language.child(*trees[i:i + 2]) for i in range(8) for _ in range(10)]\n"
        "print(*trees, sep='\\n')"
    )
    one, other = (
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
        ).stdout
        for seed in ("1", "2")
    )
    assert one == other and len(one.splitlines()) == 90


def test_breeding_leaves_pythons_generator_as_it_was():
    random.seed(5)
    expected = random.random()
    random.seed(5)
    with grammar.seeded(0):
        ALL.random()
    assert random.random() == expected


# The evolution, scored by a formula


def closeness(target, formula):
    """1 for the target, towards 0 with the mean distance of the values."""
    distance = np.mean(np.abs(search.function_values(formula)[0] - target))
    return [1 / (1 + float(distance))]


def evolved(workdir, config=SMALL, train=None, language=ALL):
    journal = search.Journal(workdir / "evaluations.jsonl", config)
    train = train or functools.partial(closeness, np.abs(search.GRID) + 1)
    evaluate = search.Evaluate(journal, train)
    return search.evolve(config, language, evaluate, lambda generation, candidates: None)


def front_of(candidates):
    return [
        (c.formula, c.complexity, c.evaluation.accuracy) for c in search.pareto_front(candidates)
    ]


def test_evolution_comes_nearer_than_every_known_function(tmp_path):
    candidates = evolved(tmp_path, SearchConfig(population=12, generations=6))
    known = {ALL.formula(tree) for tree in ALL.known()}
    best = max(c.evaluation.accuracy for c in candidates if c.formula in known)
    assert search.pareto_front(candidates)[-1].evaluation.accuracy > 1.2 * best


def test_the_known_functions_are_in_the_race_from_the_start(tmp_path):
    formulas = [c.formula for c in evolved(tmp_path, dataclasses.replace(SMALL, generations=0))]
    assert formulas[:4] == ["x", "Max(0, x)", "x*sigmoid(x)", "tanh(x)"]
    assert len(formulas) == 8


def test_the_seed_decides_and_nothing_else(tmp_path):
    def formulas(name, seed):
        (tmp_path / name).mkdir()
        random.seed(name)
        return [c.formula for c in evolved(tmp_path / name, dataclasses.replace(SMALL, seed=seed))]

    assert formulas("a", 0) == formulas("b", 0) != formulas("c", 1)


def test_a_search_that_was_killed_goes_on_to_the_same_front(tmp_path):
    calls = []

    def train(formula, killed_at=math.inf):
        if len(calls) == killed_at:
            raise Killed
        calls.append(formula)
        return closeness(np.abs(search.GRID) + 1, formula)

    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    expected = evolved(tmp_path / "undisturbed", train=train)
    trained = list(calls)
    calls.clear()
    with pytest.raises(Killed):
        evolved(tmp_path / "killed", train=functools.partial(train, killed_at=15))
    with open(tmp_path / "killed" / "evaluations.jsonl", "a") as file:
        file.write('{"formula": "x*si')  # what was being written
    found = evolved(tmp_path / "killed", train=train)
    assert calls == trained  # none twice, in the same order
    assert front_of(found) == front_of(expected)
    both = [(tmp_path / n / "evaluations.jsonl").read_text() for n in ("undisturbed", "killed")]
    assert [len(text.splitlines()) for text in both] == [len(both[0].splitlines())] * 2


def test_a_longer_search_goes_on_from_a_shorter_one(tmp_path):
    calls = []

    def train(formula):
        calls.append(formula)
        return closeness(search.GRID, formula)

    evolved(tmp_path, dataclasses.replace(SMALL, generations=1), train)
    first = list(calls)
    longer = dataclasses.replace(SMALL, generations=2)
    journal = search.Journal(
        tmp_path / "evaluations.jsonl", dataclasses.replace(SMALL, generations=1)
    )
    search.evolve(longer, ALL, search.Evaluate(journal, train), lambda *_: None)
    assert calls[: len(first)] == first and len(calls) == len(set(calls)) > len(first)


def test_a_grammar_that_is_exhausted_ends_the_search(tmp_path):
    tiny = grammar.Grammar(["negative"], largest=3)
    formulas = {c.formula for c in evolved(tmp_path, language=tiny)}
    assert formulas == {"x", "-x"}


def candidate(nodes, accuracy, failure=""):
    tree = [None] * nodes
    return search.Candidate(tree, f"{nodes}", search.Evaluation("", (accuracy,), failure))


def test_the_front_is_what_nothing_is_both_simpler_and_better_than():
    candidates = [
        candidate(3, 0.8),
        candidate(1, 0.5),
        candidate(2, 0.4),  # 1 node does better
        candidate(5, 0.8),  # 3 nodes do as well
        candidate(7, 0.9),
        candidate(7, 0.9),  # the same again
        candidate(1, 0.99, "diverged"),
    ]
    front = search.pareto_front(candidates)
    assert [(c.complexity, c.evaluation.accuracy) for c in front] == [(1, 0.5), (3, 0.8), (7, 0.9)]
    assert front[-1] is candidates[4]


def test_a_search_in_which_everything_failed_says_so():
    with pytest.raises(UserError, match="Every function of the search failed"):
        search.pareto_front([candidate(1, 0.0, "diverged")])


# The scores


@pytest.fixture
def counted(tmp_path):
    """An `Evaluate` whose journal is on disk, and the formulas that it trained."""
    trained = []

    def train(formula):
        trained.append(formula)
        return [math.nan, 0.5] if formula == "exp(x)" else [0.5, 0.7]

    def new():
        return search.Evaluate(search.Journal(tmp_path / "journal.jsonl", SMALL), train)

    return new, trained


def test_an_equal_function_in_another_form_is_not_trained_again(counted):
    new, trained = counted
    evaluate = new()
    first = evaluate("x*sigmoid(x)")
    assert evaluate("x/(1 + exp(-x))") is first
    assert evaluate("x*(1 + tanh(x/2))/2") is first
    assert first.accuracy == statistics.fmean([0.5, 0.7])
    assert evaluate("x*sigmoid(1.001*x)") is not first
    assert trained == ["x*sigmoid(x)", "x*sigmoid(1.001*x)"]
    # Neither in a search that goes on: of the second form only the text is needed.
    again = new()
    assert again("x/(1 + exp(-x))") == first and again("x*sigmoid(x)") == first
    assert again("x*(tanh(x/2) + 1)/2") == first
    assert len(trained) == 2


def test_functions_with_other_constants_are_others(counted):
    new, trained = counted
    evaluate = new()
    formulas = ["x", "a*x", "a*b*x", "a**2*x"]  # all the same where the constants start
    assert len({evaluate(formula).formula for formula in formulas}) == 4
    assert evaluate("x*(a + a)/2") is evaluate("a*x")


def test_a_training_that_diverged_is_recorded_as_the_worst(counted, tmp_path):
    new, trained = counted
    assert (new()("exp(x)").accuracy, new()("exp(x)").failure) == (0.0, "diverged")
    assert trained == ["exp(x)"]
    row = json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[1])
    assert row["formula"] == "exp(x)" and row["failure"] == "diverged"


@pytest.mark.parametrize("formula", ["1/x", "exp(x**4)", "x**40"])
def test_a_pole_an_overflow_and_what_the_layer_refuses_are_not_trained(counted, formula):
    new, trained = counted
    evaluation = new()(formula)
    assert evaluation.failure and evaluation.accuracy == 0.0 and not trained


def test_the_images_that_judge_are_a_part_of_the_training_set():
    images = datasets.load_images("digits", "")
    within = search.split(images)
    assert (len(within.train[0]), len(within.test[0])) == (1150, 287)

    def sorted_rows(*arrays):
        rows = np.concatenate([np.reshape(array, (len(array), -1)) for array in arrays])
        return rows[np.lexsort(rows.T)]

    np.testing.assert_array_equal(
        sorted_rows(within.train[0], within.test[0]), sorted_rows(images.train[0])
    )
    again = search.split(images)
    np.testing.assert_array_equal(again.test[0], within.test[0])


def test_a_seed_trained_after_another_is_as_if_it_were_alone():
    # Noise in the network and in the images: states that must begin again, too.
    config = dataclasses.replace(
        REAL,
        activation="rpau",
        activation_args={"degrees": [1, 1], "initial": [[0.0, 1.0], [0.5]]},
        augmentation="rotation",
    )
    images, _ = image_classification.data(config)
    images = search.split(images)
    first, second, again = search.accuracies(config, images, [3, 4, 3])
    assert first == again
    assert search.accuracies(config, images, [4]) == [second]


@pytest.mark.tensorflow
def test_that_many_networks_are_traced_is_no_warning(monkeypatch, caplog):
    import tensorflow as tf

    def trace(function_of_the_same_lines):
        for _ in range(6):  # TensorFlow warns after 5
            tf.function(function_of_the_same_lines())(1)
        logging.getLogger("tensorflow").warning("something else")

    compiled = image_classification.compiled

    def traced_and_compiled(*arguments):
        trace(lambda: lambda x: x)
        return compiled(*arguments)

    monkeypatch.setattr(image_classification, "compiled", traced_and_compiled)
    images, _ = image_classification.data(REAL)
    search.accuracies(REAL, search.split(images), [0])
    assert "retracing" not in caplog.text and "something else" in caplog.text
    trace(lambda: lambda x: -x)
    assert "retracing" in caplog.text


def test_a_loss_that_is_not_finite_has_no_accuracy():
    config = dataclasses.replace(
        REAL, activation="slaf", activation_args={}, optimizer="sgd", learning_rate=1e4
    )
    images, _ = image_classification.data(config)
    assert np.isnan(search.accuracies(config, search.split(images), [0])).all()


# A whole search


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("search")
    return workdir, search.search(REAL, workdir)


def without_seconds(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.once
def test_a_real_search_that_was_killed_ends_as_an_undisturbed_one(finished, tmp_path):
    workdir, metrics = finished
    # What is on disk when the process ends while a line is written.
    for name in ("evaluations.jsonl", "checks.jsonl"):
        lines = (workdir / name).read_text().splitlines(keepends=True)
        (tmp_path / name).write_text("".join(lines[:-2]) + lines[-2][:-9])
    results = tmp_path / "results" / "digits"
    assert search.search(dataclasses.replace(REAL, results=str(results)), tmp_path) == metrics
    for name in ("evaluations.jsonl", "checks.jsonl"):
        assert without_seconds(tmp_path / name) == without_seconds(workdir / name)
    table, page = (results.with_suffix(ending).read_text() for ending in (".csv", ".md"))
    assert table == (workdir / "front.csv").read_text()
    assert f" --results={results}\n" in page


@pytest.mark.once
def test_a_search_writes_its_front_beside_known_activations(finished):
    workdir, metrics = finished
    with open(workdir / "front.csv") as file:
        rows = list(csv.DictReader(file))
    front = [row for row in rows if row["complexity"]]
    assert [row["name"] for row in rows[len(front) :]] == ["ReLU", "SiLU", "EELU", "PAU"]
    for one, other in zip(front, front[1:], strict=False):
        assert int(one["complexity"]) < int(other["complexity"])
        assert float(one["validation_accuracy"]) < float(other["validation_accuracy"])
    assert front[-1]["formula"] == metrics["formula"]
    assert float(front[-1]["test_accuracy"]) == metrics["test_accuracy"]
    checks = without_seconds(workdir / "checks.jsonl")[1:]
    assert [row["name"] for row in checks] == [row["name"] for row in rows]
    assert all(len(row["accuracies"]) == 2 for row in checks)


@pytest.mark.once
def test_its_page_says_how_it_is_made_again(finished):
    workdir, metrics = finished
    text = (workdir / "front.md").read_text()
    assert f"    {search_results.call(metrics['formula'])}\n" in text
    assert "--population=4 --generations=1" in text and "--operations=add,multiply" in text
    assert "(front.png)" in text
    assert (workdir / "front.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.once
def test_a_finished_search_says_so(finished, capsys):
    workdir, metrics = finished
    assert search.search(REAL, workdir) == metrics
    assert "This run is finished" in capsys.readouterr().out


@pytest.mark.once
@pytest.mark.parametrize("file", ["result.json", "evaluations.jsonl"])
def test_the_workdir_of_another_search_is_an_error(finished, file):
    workdir, metrics = finished
    result = (workdir / "result.json").read_text()
    if file != "result.json":
        (workdir / "result.json").unlink()
    with pytest.raises(UserError, match=f"{file} belongs to another run: seed=0 there and 1 here"):
        search.search(dataclasses.replace(REAL, seed=1), workdir)
    (workdir / "result.json").write_text(result)


def test_the_line_to_use_makes_the_layer():
    for formula in ("-x*erf(exp(-x))", "a*x*tanh(b*x)"):
        layer = eval(search_results.call(formula), {"Expression": kla.Expression})
        assert layer.curve([1.0]).shape == (1, 1)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"population": 3}, "population of 4 functions or more.*Received: population=3"),
        ({"operations": "add,power"}, "operations must be of add, .*Received: power"),
        ({"activation": "relu"}, "its activation is expression.*Received: activation='relu'"),
        ({"activation_args": {"sharng": "channel"}}, "activation=expression.*sharng"),
        ({"dataset": "imagenet2012"}, "images in memory.*Received: dataset='imagenet2012'"),
        ({"distribute": "mirrored"}, "on one device.*distribute='mirrored'"),
        ({"repeats": 0}, "repeats of 1 or more. Received: 0"),
        ({"constants": 24}, "0 to 23 trainable constants. Received: constants=24"),
        ({"largest": 2}, "Received: largest=2"),
        ({"network": "lenett"}, "network must be one of.*Received: 'lenett'"),
    ],
)
def test_what_cannot_be_searched_is_said_before_any_training(tmp_path, wrong, message):
    with pytest.raises(UserError, match=message):
        search.search(dataclasses.replace(REAL, **wrong), tmp_path)
    assert (
        not list(tmp_path.glob("*.jsonl"))
        or len((tmp_path / "evaluations.jsonl").read_text().splitlines()) == 1
    )


def test_a_quick_search_is_a_small_one():
    config = quick(load_preset("training/configs/digits_search.py", SearchConfig))
    assert (config.population, config.generations, config.repeats) == (4, 1, 1)
