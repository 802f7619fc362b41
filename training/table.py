"""What a table of a paper is made of: experiments (its columns), activations (its rows), seeds.

A table is a file of `training/tables`, as a preset is one of `training/configs`.
"""

import collections
import dataclasses
import re
import runpy
from pathlib import Path

from training.config import Config, ImageConfig, PruningConfig, RegressionConfig, UserError, quick

FOLDER = Path(__file__).parent / "tables"
PROGRAMS = {
    ImageConfig: "training.image_classification",
    PruningConfig: "training.pruning",
    RegressionConfig: "training.regression",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """An activation of a table.

    Args:
        activation: its name, see `training.activations`.
        arguments: of its constructor.
        label: what the table calls it; the name where this is empty.
    """

    activation: str
    arguments: dict = dataclasses.field(default_factory=dict)
    label: str = ""

    def __post_init__(self):
        object.__setattr__(self, "label", self.label or self.activation)


@dataclasses.dataclass(frozen=True)
class Column:
    """An experiment of a table: a network on a data set, and its recipe.

    Args:
        label: what the table calls it, say "MNIST, LeNet".
        config: the recipe; rows and seeds replace its activation and seed.
        overrides: for the label of a row, fields of the recipe that are others there.
        paper: for the label of a row, the published value as text.
        without: labels of the rows that this experiment does not have.
    """

    label: str
    config: Config
    overrides: dict[str, dict] = dataclasses.field(default_factory=dict)
    paper: dict[str, str] = dataclasses.field(default_factory=dict)
    without: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Run:
    """One training of a table."""

    column: Column
    row: Row
    seed: int

    @property
    def config(self) -> Config:
        return dataclasses.replace(
            self.column.config,
            **{
                "activation": self.row.activation,
                "activation_args": self.row.arguments,
                "seed": self.seed,
                **self.column.overrides.get(self.row.label, {}),
            },
        )

    @property
    def key(self) -> tuple[str, str, int]:
        return self.column.label, self.row.label, self.seed

    @property
    def program(self) -> str:
        return PROGRAMS[type(self.column.config)]

    @property
    def has_images(self) -> bool:
        return isinstance(self.column.config, ImageConfig)

    @property
    def folder(self) -> str:
        """Where it works, in the folder of its table."""
        return f"{slug(self.column.label)}/{slug(self.row.label)}/seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a paper, or one of ours.

    Args:
        title: its heading.
        claim: what it is to show.
        source: whose claim that is, with table and year.
        columns: the experiments.
        rows: the activations; every experiment is run with each, but for its `without`.
        seeds: every run is repeated with each.
        metric: the name of a metric in result.json.
        further: names of other metrics of the same unit, of which the results show the mean.
        unit: of the metrics; "%" shows a fraction in percent.
        larger_is_better: whether the largest value wins.
        against: "epochs" draws the test accuracy of each epoch; "parameters" draws the metric over
            the number of parameters, all columns in one picture.
        learned: the label of the row whose learned functions are drawn; none where this is empty.
        remarks: what a reader must know, say what was reduced.

    Errors: a `UserError` for two runs that would have the same folder.
    """

    title: str
    claim: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    metric: str = "final_accuracy"
    further: tuple[str, ...] = ()
    unit: str = "%"
    larger_is_better: bool = True
    against: str = "epochs"
    learned: str = ""
    remarks: str = ""

    def __post_init__(self):
        folders = collections.Counter(run.folder for run in self.runs())
        if twice := [folder for folder, count in folders.items() if count > 1]:
            raise UserError(
                "Every run needs a folder of its own, which its labels and its seed name. Received "
                f"more than once: {', '.join(twice)}. Give a row or a column another label."
            )

    def runs(self) -> list[Run]:
        """In the order of their seeds, so that a sweep that ends early has a little of all."""
        return [
            Run(column, row, seed)
            for seed in self.seeds
            for column in self.columns
            for row in self.rows
            if row.label not in column.without
        ]


def quick_form(table: Table) -> Table:
    """The table with the quick form of every run, see `training.config.quick`."""
    return dataclasses.replace(
        table,
        title=f"{table.title}, quick",
        columns=tuple(
            dataclasses.replace(column, config=quick(column.config), paper={})
            for column in table.columns
        ),
        remarks="Two steps a run: it shows that everything runs. The numbers mean nothing.",
    )


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def load(name: str):
    """The `table` of `training/tables/<name>.py`.

    Errors: a `UserError` if there is none of that name.
    """
    if name not in names():
        raise UserError(f"The table must be one of {', '.join(names())}. Received: {name!r}")
    return runpy.run_path(str(FOLDER / f"{name}.py"))["table"]


def slug(label: str) -> str:
    """A label as the name of a folder: "MNIST, VGG-8" is "mnist_vgg_8"."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")
