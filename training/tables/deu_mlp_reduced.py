"""The perceptron columns of deu_mnist with 2 of 100 epochs, for machines without a GPU.

24 runs of 2 epochs over 60,000 images.

    python -m training.sweep --table=deu_mlp_reduced --download
"""

import dataclasses

from training.table import load

full = load("deu_mnist")

table = dataclasses.replace(
    full,
    title="MNIST and Fashion-MNIST, MLP, reduced to 2 epochs",
    columns=tuple(
        dataclasses.replace(column, config=dataclasses.replace(column.config, epochs=2))
        for column in full.columns
        if column.config.network == "mlp"
    ),
    seeds=(0, 1, 2),
    remarks="Reduced: 2 epochs of 100 ○ and 3 seeds of 5, over all 60,000 images, so that two "
    "cores of a CPU can run it. It shows how fast the networks learn, not how far they come, "
    "and is not to be mixed with deu_mnist.",
)
