"""A perceptron with DEU on diabetes, 3 folds (○: its size, rate and epochs are ours).

Claim: DEU is at least as good as ReLU, Maxout and SELU in networks of equal size, and a smaller
network with DEU as good as a larger one with ReLU.
Source: Torkamani, Shankar, Rooshenas, Wallis: Differential Equation Units, AAAI 2020.

Baselines: the same command with --activation=relu, maxout, selu.

    python -m training.regression --config=training/configs/diabetes_mlp_deu.py
"""

from training.config import RegressionConfig

config = RegressionConfig(dataset="diabetes", hidden=(50,), activation="deu")
