"""DiTAC's toy problems: the sum-of-sines regression, and a signal in one dimension.

60 runs of 300 epochs over 3,000 or 1,000 points, in three folds; no download.

    python -m training.sweep --table=ditac_toy
"""

import dataclasses

from training.configs.sum_of_sines_mlp_pau import config
from training.table import Column, Row, Table

table = Table(
    title="Sum of sines and a signal, 50 hidden units (DiTAC's toy problems)",
    claim="DiTAC fits them better than ReLU, GELU and PReLU do, with the same network.",
    source="Chelly, Finder, Ifergane, Freifeld: DiTAC, ECCV 2024; the signal is a reconstruction",
    columns=(
        Column("Sum of sines, MLP 50", config),
        Column("Signal, MLP 50", dataclasses.replace(config, dataset="signal")),
    ),
    rows=(
        *map(Row, ("relu", "gelu", "prelu", "pau", "deu")),
        Row("ditac", {"interval": (-3, 3)}),
    ),
    learned="ditac",
    metric="rmse_mean",
    unit="",
    larger_is_better=False,
    remarks="RMSE after the last epoch, mean of the folds; the spread is that over the seeds, "
    "the folds are the same in all. Adam 0.005, batches of 98, 10 cells and the interval (-3, 3) "
    "are the paper's; the signal, the numbers of points, the folds and the epochs are ours. "
    "DiTAC starts as GELU and has no prior here. "
    "Always predicting the mean of the sines has an RMSE of 0.35.",
)
