"""The sum-of-sines toy with 50 hidden units and PAU.

Claim: none of a paper for PAU; it is the toy on which DiTAC was compared with fixed activations.
Adam 0.005 and batches of 98 are theirs, the points, their number and the epochs are ours.
Source: Chelly, Finder, Ifergane, Freifeld: DiTAC, ECCV 2024.

Baselines: the same command with --activation=relu or gelu.

    python -m training.regression --config=training/configs/sum_of_sines_mlp_pau.py
"""

from training.config import RegressionConfig

config = RegressionConfig(
    dataset="sum_of_sines",
    hidden=(50,),
    activation="pau",
    learning_rate=0.005,
    batch_size=98,
    epochs=300,
)
