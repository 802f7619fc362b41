"""Pruning as in Fig. 4 of the PAU paper, much reduced: LeNet on MNIST, for machines without a GPU.

9 runs of 7 networks with 2 epochs each over the first 30,000 of 60,000 images.

    python -m training.sweep --table=lenet_pruning_reduced --download
"""

import dataclasses

from training.table import load

full = load("lenet_pruning")

table = dataclasses.replace(
    full,
    title="MNIST, LeNet, pruned, reduced to 2 epochs of 30,000 images",
    columns=tuple(
        dataclasses.replace(
            column, config=dataclasses.replace(column.config, epochs=2, examples=30_000)
        )
        for column in full.columns
    ),
    seeds=(0, 1, 2),
    remarks="Reduced: 2 epochs of the recipe's 100, 3 seeds of 5, and the first 30,000 of 60,000 "
    "training images; tested on all 10,000 test images. It shows how fast smaller networks learn, "
    "not how far they come: it can neither confirm nor refute the claim, and is not to be mixed "
    "with lenet_pruning.",
)
