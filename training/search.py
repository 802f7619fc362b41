"""Searches for activation functions: evolution over formulas, scored by short trainings.

    python -m training.search
    python -m training.search --dataset=mnist --examples=5000 --population=24 --generations=10
    python -m training.search --constants=2 --operations=add,multiply,maximum,exp,tanh,sigmoid

As EELU was found (Rahman, He, Wang 2024: -x·erf(e^(-x))). The grammar, the evolution, NSGA-II (Deb,
Pratap, Agarwal, Meyarivan 2002), and the size of everything are ours ○.

Two things count: the accuracy after a short training, on a part of the training set that is kept
aside, and the number of nodes of the formula. What is best in both, the Pareto front, is trained
again with other seeds on the whole training set and tested once on the test set, beside known
activations. The test set has no part in the search.

The same command again goes on where it was killed, and says so when it has finished. To search on,
delete its result.json and give more --generations.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import math
import os
import random
import statistics
import time
from pathlib import Path

import keras
import numpy as np
from deap import base, tools

import keras_learnact as kla
from keras_learnact import formulas
from keras_learnact.files import written
from training import activations, datasets, feeding, grammar, image_classification, records
from training import search_results as results
from training.command_line import from_flags, start
from training.config import ImageConfig, SearchConfig, UserError
from training.loop import assert_same_run

# The part of the training set that judges, the same for every search of a data set.
VALIDATION_SHARE, VALIDATION_SEED = 0.2, 0
# Added to the seed for the trainings at the end: no training of the search had one of these.
CHECK_SEED = 1000

# Where functions are compared: normalised inputs and most sums over them lie here.
GRID = np.linspace(-8, 8, 257)
# The values of trainable constants there: their start, and numbers that no formula meets by chance.
CONSTANTS = {letter: [[1.0], [0.7182 + 0.1 * i]] for i, letter in enumerate(grammar.LETTERS)}
# float32 of the same function, computed in another order.
SAME = {"rtol": 1e-5, "atol": 1e-6}
# A pole, or what overflows: `Expression` makes it the largest number.
OVERFLOW = 1e30

# Random trees for each function that is wanted, before a grammar counts as exhausted.
ATTEMPTS = 200

# Trained at the end beside the front, on the same budget.
BASELINES = {
    "ReLU": ("relu", {}),
    "SiLU": ("silu", {}),
    "EELU": ("expression", {"formula": "-x*erf(exp(-x))"}),
    "PAU": ("pau", {}),
}


def search(config: SearchConfig, workdir: str) -> dict:
    """Searches, and leaves what was found in `workdir`.

    `evaluations.jsonl` and `checks.jsonl` get a line for each function and for each of those that
    are trained at the end, as soon as it is known; front.csv, front.md, front.png and result.json
    are the end. A search that was killed loses one function's trainings and ends as an undisturbed
    one.

    Returns:
        The metrics of result.json: the `formula` of the front with the best `validation_accuracy`
        (the mean over its `repeats`), its `test_accuracy` (mean) and `test_accuracy_std`; how many
        `functions` were trained or refused, and how many of them `failed`.

    Errors: a `UserError` for an unknown name, a population too small for evolution, or a workdir of
    another search, before any training; a `datasets.MissingDataset`.
    """
    workdir = Path(workdir)
    metrics = records.finished(workdir, config)
    if metrics is not None:
        return metrics
    _assert_possible(config)
    operations = [name.strip() for name in config.operations.split(",") if name.strip()]
    language = grammar.Grammar(operations, config.constants, config.largest)
    images, _ = image_classification.data(config)
    workdir.mkdir(parents=True, exist_ok=True)
    files = Path(config.results or workdir / "front")
    files.parent.mkdir(parents=True, exist_ok=True)
    # What a function was worth does not depend on how long the search is.
    any_length = dataclasses.replace(config, generations=0)
    evaluations = Journal(workdir / "evaluations.jsonl", any_length)
    checks = Journal(workdir / "checks.jsonl", any_length)
    if evaluations.rows:
        print(f"Goes on after {len(evaluations.rows)} functions: {evaluations.path}")
    within = split(images)
    print(
        f"{config.network} on {images.source}: trains on {len(within.train[0])} images, judges by "
        f"{len(within.test[0])} others."
    )

    evaluate = Evaluate(evaluations, lambda formula: _train_formula(config, within, formula))
    candidates = evolve(config, language, evaluate, _report)
    front = pareto_front(candidates)
    rows = _check(config, images, front, checks)
    best = next(row for row in rows if row["formula"] == front[-1].formula)
    failed = sum(bool(candidate.evaluation.failure) for candidate in candidates)
    metrics = {
        "formula": best["formula"],
        "complexity": best["complexity"],
        "validation_accuracy": best["validation_accuracy"],
        "test_accuracy": best["test_accuracy"],
        "test_accuracy_std": best["test_accuracy_std"],
        "functions": len(candidates),
        "failed": failed,
    }
    results.write(files, config, candidates, rows, images.source)
    winner = _as_formula(config, best["formula"])
    model = image_classification.new_network(winner, images)
    records.write_result(workdir, config, model, metrics=metrics, dataset=images.source)
    return metrics


def main(argv):
    config, workdir = from_flags(SearchConfig)
    metrics = search(config, workdir)
    print(f"{records.summary(metrics)}\nEverything is in {workdir}. The line to use:\n")
    print(f"    {results.call(metrics['formula'])}")


def _assert_possible(config):
    if config.population < 4:
        raise UserError(
            "Evolution needs a population of 4 functions or more: parents are the winners of two "
            f"duels. Received: population={config.population}"
        )
    for name, least in (("generations", 0), ("repeats", 1), ("check_repeats", 2)):
        if getattr(config, name) < least:
            raise UserError(
                f"A search needs {name} of {least} or more. Received: {getattr(config, name)}"
            )
    if config.activation != "expression":
        raise UserError(
            "A search tries formulas, so its activation is expression; known activations are "
            f"trained at its end. Received: activation={config.activation!r}"
        )
    if config.dataset == "imagenet2012" or config.distribute != "none":
        raise UserError(
            "A search trains many small networks on images in memory, on one device. Received: "
            f"dataset={config.dataset!r}, distribute={config.distribute!r}"
        )
    # Arguments that no formula takes would make every candidate fail.
    activations.create("expression", **{**config.activation_args, "formula": "x"})


# The evolution


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a function was worth.

    Args:
        formula: as it was trained first.
        accuracies: on the images that judge, one for each repeat.
        failure: why there are none, or "".
        seconds: of all of it.
    """

    formula: str
    accuracies: tuple[float, ...] = ()
    failure: str = ""
    seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        """The mean; 0, the worst, of one that failed."""
        return 0.0 if self.failure else statistics.fmean(self.accuracies)


class Fitness(base.Fitness):
    """Accuracy, to be large, and complexity, to be small."""

    weights = (1.0, -1.0)


class Candidate:
    """A function of the search, by its simplest tree.

    Args:
        tree: its tree.
        formula: the text of that tree.
        evaluation: of the function.
    """

    def __init__(self, tree, formula: str, evaluation: Evaluation):
        self.tree, self.formula, self.evaluation = tree, formula, evaluation
        self.complexity = len(tree)
        self.fitness = Fitness((evaluation.accuracy, self.complexity))


def evolve(config: SearchConfig, language: grammar.Grammar, evaluate, report) -> list[Candidate]:
    """All functions that an evolution comes to, each once.

    Half of the first population are known functions, the rest is random. Which trees come next
    depends on the seed, the number of the generation and the scores of those before it, and on
    nothing else: with the same scores it goes the same way.

    Args:
        config: its population, generations and seed.
        language: the trees.
        evaluate: from a formula to its `Evaluation`; that of an equal function has its formula.
        report: is called with the number of every generation and all candidates so far.
    """
    candidates, seen = {}, set()

    def evaluated(trees):
        """The functions of some trees; an equal function with fewer nodes replaces the other."""
        functions = []
        for formula, tree in trees.items():
            evaluation = evaluate(formula)
            known = candidates.get(evaluation.formula)
            if known is None or len(tree) < known.complexity:
                candidates[evaluation.formula] = Candidate(tree, formula, evaluation)
            functions.append(evaluation.formula)
        return functions

    with grammar.seeded(config.seed, 0):
        known = iter(language.known()[: config.population // 2])
        trees = _new(language, lambda: next(known, None) or language.random(), config, seen)
    functions = evaluated(trees)
    for generation in range(1, config.generations + 1):
        report(generation - 1, list(candidates.values()))
        pool = [candidates[function] for function in dict.fromkeys(functions)]
        population = tools.selNSGA2(pool, config.population)
        with grammar.seeded(config.seed, generation):
            trees = _new(language, functools.partial(_child, language, population), config, seen)
        survivors = [candidate.evaluation.formula for candidate in population]
        functions = survivors + evaluated(trees)
    report(config.generations, list(candidates.values()))
    return list(candidates.values())


def pareto_front(candidates: list[Candidate]) -> list[Candidate]:
    """Those than which no other is both simpler and better, the simplest first; failed ones never.

    Of candidates that are equal in both the first one found.
    """
    sound = [candidate for candidate in candidates if not candidate.evaluation.failure]
    if not sound:
        raise UserError(
            "Every function of the search failed: see evaluations.jsonl. Use another "
            "--learning_rate or --clip_norm."
        )
    front = tools.sortNondominated(sound, len(sound), first_front_only=True)[0]
    first = {}
    for candidate in front:
        first.setdefault(candidate.fitness.values, candidate)
    return sorted(first.values(), key=lambda candidate: candidate.complexity)


def _new(language, make, config, seen):
    """A population of formulas that were not there before, with their trees.

    Fewer if the grammar is so small that it hardly has more.
    """
    found = {}
    for _ in range(ATTEMPTS * config.population):
        if len(found) == config.population:
            break
        tree = make()
        formula = language.formula(tree) if len(tree) <= language.largest else None
        if formula is not None and formula not in seen:
            seen.add(formula)
            found[formula] = tree
    return found


def _child(language, population):
    # A grammar with hardly any functions may not have so many.
    enough = population if len(population) >= 4 else 4 * population
    # Two duels among four; DEAP holds another two among the same.
    one, other, *_ = tools.selTournamentDCD(random.sample(enough, 4), 4)
    return language.child(one.tree, other.tree)


def _report(generation, candidates):
    best = max(candidates, key=lambda candidate: candidate.fitness.values[0])
    failed = sum(bool(candidate.evaluation.failure) for candidate in candidates)
    print(
        f"Generation {generation}: {len(candidates)} functions, {failed} of them failed; "
        f"best {best.evaluation.accuracy:.2%}  {best.formula}",
        flush=True,
    )


# The scores


class Journal:
    """Rows of JSON in a file, each on disk as soon as it is known; the first says whose they are.

    Args:
        path: the file; its rows are read if it is there.
        config: the search.

    Errors: a `UserError` if the file is another search's.
    """

    def __init__(self, path: Path, config: SearchConfig):
        self.path = path
        self.rows = []
        # A process that was killed may have left a part of a line.
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        head, *self.rows = map(json.loads, lines or [json.dumps(dataclasses.asdict(config))])
        assert_same_run(config, head, path)
        lines = lines or [json.dumps(head)]
        with written(path, "w") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def append(self, row: dict) -> None:
        self.rows.append(row)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


class Evaluate:
    """From formulas to their `Evaluation`s, each trained once, in whatever form it comes.

    Args:
        journal: where they are kept.
        train: from a formula to its accuracies, one of them nan if its training diverged.
    """

    def __init__(self, journal: Journal, train):
        self._journal, self._train = journal, train
        self._evaluations, self._values = {}, {}
        for row in journal.rows:
            self._keep(**row)

    def __call__(self, formula: str) -> Evaluation:
        if formula not in self._evaluations:
            row = self._evaluated(formula)
            self._journal.append(row)
            self._keep(**row)
        return self._evaluations[formula]

    def _keep(self, formula, same_as="", **row):
        row = {**row, "accuracies": tuple(row.get("accuracies", ()))}
        self._evaluations[formula] = (
            self._evaluations[same_as] if same_as else Evaluation(formula, **row)
        )

    def _evaluated(self, formula):
        begin = time.perf_counter()
        try:
            values = self._values[formula] = function_values(formula)
        except ValueError as error:
            return {"formula": formula, "failure": str(error)}
        for other, evaluation in self._evaluations.items():
            trained = evaluation.accuracies or evaluation.failure == results.DIVERGED
            if evaluation.formula != other or not trained:
                continue
            if other not in self._values:
                self._values[other] = function_values(other)
            if np.shape(values) == np.shape(self._values[other]) and np.allclose(
                values, self._values[other], **SAME
            ):
                print(f"  {formula} is {other}")
                return {"formula": formula, "same_as": other}
        largest = np.max(np.abs(values))
        if largest >= OVERFLOW:
            failure = f"a pole or an overflow between {GRID[0]:g} and {GRID[-1]:g}"
            return {"formula": formula, "failure": failure}
        found = self._train(formula)
        row = {"formula": formula, "accuracies": found}
        if not all(map(math.isfinite, found)):
            row = {"formula": formula, "failure": results.DIVERGED}
        row["seconds"] = round(time.perf_counter() - begin, 2)
        outcome = row.get("failure") or f"{statistics.fmean(found):.2%}"
        print(f"  {outcome:>8}  {formula}  ({row['seconds']:.0f} s)", flush=True)
        return row


def function_values(formula: str) -> np.ndarray:
    """The values of a formula on `GRID`, with its constants at `CONSTANTS`.

    Errors: a ValueError for a formula that `Expression` does not take, say a power too high.
    """
    names = formulas.parse(formula).constants
    layer = kla.Expression(formula, **dict.fromkeys(names, 1.0))
    if not names:
        return layer.curve(GRID)
    return layer.curve(GRID, {name: np.array(CONSTANTS[name]) for name in names})


def split(images: datasets.Images) -> datasets.Images:
    """Images whose training set is a part of the training set, and whose test set is the rest."""
    order = np.random.default_rng(VALIDATION_SEED).permutation(len(images.train[0]))
    aside = max(1, int(VALIDATION_SHARE * len(order)))
    train, validation = (
        tuple(array[rows] for array in images.train) for rows in (order[aside:], order[:aside])
    )
    return dataclasses.replace(images, train=train, test=validation)


@contextlib.contextmanager
def _traced_often():
    """Without TensorFlow's warning that it traces a function again and again.

    Each formula is another network, whose steps must be traced once. TensorFlow counts by lines of
    source code, and takes the steps of all networks, which Keras makes, for one function.
    """

    def is_another(record):
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(is_another)
    try:
        yield
    finally:
        logger.removeFilter(is_another)


@_traced_often()
def accuracies(config: ImageConfig, images: datasets.Images, seeds: list[int]) -> list[float]:
    """The accuracy on `images.test` after the training of a run with each seed; nan: it diverged.

    What is compiled for the first seed serves the others: of a short training that is most of the
    time.
    """
    keras.utils.clear_session()
    found, used = [], None
    for seed in seeds:
        run = dataclasses.replace(config, seed=seed)
        feed = feeding.ArrayFeed(images.train, images.test, run.batch_size, seed)
        _, trainer = image_classification.compiled(run, images, feed.steps_per_epoch)
        used = _started_again(used, trainer) if used else trainer
        arguments = feed.arguments(first_epoch=0)
        arguments["callbacks"].append(keras.callbacks.TerminateOnNaN())
        history = used.fit(
            **arguments, epochs=config.epochs, validation_freq=config.epochs, verbose=0
        ).history
        sound = np.all(np.isfinite(history["loss"]))
        found.append(float(history["val_accuracy"][-1]) if sound else math.nan)
    return found


def _started_again(used, fresh):
    """A trained model with the variables of a new one."""
    for model in (used, fresh):
        model.optimizer.build(model.trainable_variables)
    pairs = zip(
        [*used.variables, *used.optimizer.variables],
        [*fresh.variables, *fresh.optimizer.variables],
        strict=True,
    )
    for variable, new in pairs:
        variable.assign(new)
    return used


def _as_formula(config, formula):
    constants = dict.fromkeys(formulas.parse(formula).constants, 1.0)
    arguments = {**config.activation_args, "formula": formula, **constants}
    return dataclasses.replace(config, activation="expression", activation_args=arguments)


def _train_formula(config, images, formula):
    seeds = [config.seed + i for i in range(config.repeats)]
    return accuracies(_as_formula(config, formula), images, seeds)


def _check(config, images, front, journal):
    """A row for each function of the front, and for each baseline: what they reach with new seeds.

    The rows of front.csv, see there.
    """
    print("On the test set, with other seeds:")
    wanted = {
        candidate.formula: (_as_formula(config, candidate.formula), candidate)
        for candidate in front
    }
    for name, (activation, arguments) in BASELINES.items():
        baseline = dataclasses.replace(config, activation=activation, activation_args=arguments)
        wanted[name] = (baseline, None)
    seeds = [config.seed + CHECK_SEED + i for i in range(config.check_repeats)]
    known = {row["name"]: row["accuracies"] for row in journal.rows}
    rows = []
    for name, (run, candidate) in wanted.items():
        if name not in known:
            # JSON has no nan.
            known[name] = [
                accuracy if math.isfinite(accuracy) else None
                for accuracy in accuracies(run, images, seeds)
            ]
            journal.append({"name": name, "accuracies": known[name]})
        rows.append(results.row(name, run, candidate, known[name]))
        print(f"  {results.accuracy(rows[-1])}  {name}", flush=True)
    return rows


if __name__ == "__main__":
    start(SearchConfig, main)
