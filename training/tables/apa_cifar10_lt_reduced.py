"""ResNet-32 on long-tailed CIFAR-10, much reduced: for machines without a GPU.

4 runs of 5 epochs over a long tail of the first 16,000 of 50,000 images.

    python -m training.sweep --table=apa_cifar10_lt_reduced --download
"""

import dataclasses

from training.table import load

full = load("apa_cifar10_lt")
(column,) = full.columns
config = dataclasses.replace(
    column.config, epochs=5, examples=16_000, batch_size=64, learning_rate=0.05
)

table = dataclasses.replace(
    full,
    title="CIFAR-10-LT with an imbalance of 100, ResNet-32, reduced to 5 epochs",
    columns=(dataclasses.replace(column, config=config),),
    rows=tuple(row for row in full.rows if row.label != "gelu"),
    seeds=(0,),
    remarks="Reduced: 5 epochs of 500, one seed of five, no GELU, batches of 64, a rate of 0.05, "
    "and the long tail is that of the first 16,000 of 50,000 training images, with about a third "
    "of the numbers below, so that two cores of a CPU can run it. After so few steps no network "
    "has learned the rare classes: it can neither confirm nor refute the claim, and is not to be "
    f"mixed with apa_cifar10_lt. {full.remarks}",
)
