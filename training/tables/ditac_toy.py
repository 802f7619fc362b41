"""The sum-of-sines regression on which DiTAC was compared with fixed activations.

25 runs of 300 epochs over 3,000 points, in three folds; no download.

    python -m training.sweep --table=ditac_toy
"""

from training.configs.sum_of_sines_mlp_pau import config
from training.table import Column, Row, Table

table = Table(
    title="Sum of sines, 50 hidden units (DiTAC's toy problem)",
    claim="None of a paper for these activations. DiTAC, about which its paper's claim is, is "
    "not among them: keras_learnact has no layer of it yet.",
    source="The problem: Chelly, Finder, Ifergane, Freifeld: DiTAC, ECCV 2024",
    columns=(Column("Sum of sines, MLP 50", config),),
    rows=tuple(map(Row, ("relu", "gelu", "prelu", "pau", "deu"))),
    learned="pau",
    metric="rmse_mean",
    unit="",
    larger_is_better=False,
    remarks="RMSE after the last epoch, mean of 3 folds; the spread is that over the seeds, "
    "the folds are the same in all. Adam 0.005 and batches of 98 are the paper's, the 3,000 "
    "points, the folds and the 300 epochs are ours. Always predicting the mean has an RMSE of "
    "0.35.",
)
