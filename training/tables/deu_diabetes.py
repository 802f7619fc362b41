"""A perceptron with DEU and its baselines on diabetes, 3 folds: complete, without a download.

20 runs of 100 epochs over 442 examples, in three folds; no download.

    python -m training.sweep --table=deu_diabetes
"""

from training.configs.diabetes_mlp_deu import config
from training.recipes import DEU_ACTIVATIONS
from training.table import Column, Row, Table

table = Table(
    title="Diabetes, 3-fold cross-validation (DEU paper)",
    claim="DEU is at least as good as ReLU, Maxout and SELU in layers of equal size.",
    source="Torkamani, Shankar, Rooshenas, Wallis: Differential Equation Units, AAAI 2020",
    columns=(Column("Diabetes, MLP 50", config),),
    rows=tuple(map(Row, DEU_ACTIVATIONS)),
    learned="deu",
    metric="rmse_mean",
    unit="points of disease progression",
    larger_is_better=False,
    remarks="RMSE after the last epoch, mean of the 3 folds; the spread is that over the "
    "seeds, the folds are the same in all. The paper's numbers are not known to us, nor are "
    "the size of its network, its rate and its epochs (○ ours). Always predicting the mean "
    "has an RMSE of 77.",
)
