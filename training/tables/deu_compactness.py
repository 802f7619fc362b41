"""Accuracy against number of parameters: the DEU paper's perceptron from an eighth of its width on.

60 runs of 100 epochs over 60,000 images.

    python -m training.sweep --table=deu_compactness --download
"""

from training.config import ImageConfig
from training.recipes import DEU_MNIST
from training.table import Column, Row, Table

table = Table(
    title="MNIST, perceptrons of four widths (DEU paper)",
    claim="A smaller DEU network is about as good as a larger ReLU network.",
    source="Torkamani, Shankar, Rooshenas, Wallis: Differential Equation Units, AAAI 2020",
    columns=tuple(
        Column(
            f"MNIST, MLP × {label}",
            ImageConfig(dataset="mnist", network="mlp", width=width, **DEU_MNIST),
        )
        for label, width in (("1/8", 1 / 8), ("1/4", 1 / 4), ("1/2", 1 / 2), ("1", 1.0))
    ),
    rows=tuple(map(Row, ("relu", "deu", "pau"))),
    against="parameters",
    remarks="The whole network has 1,024 and 512 hidden units. The paper's numbers are not "
    "recoverable; its optimizer is Adam, and its rate, batch, epochs and widths are not known "
    "(○ ours). PAU is ours to add: 10 parameters for a layer, where DEU has 5 for a neuron.",
)
