"""ResNet-32 on long-tailed CIFAR-10, much reduced: for machines without a GPU.

4 runs of 5 epochs over the first 4,000 of 12,406 images.

    python -m training.sweep --table=apa_cifar10_lt_reduced --download
"""

import dataclasses

from training.table import load

full = load("apa_cifar10_lt")
(column,) = full.columns
config = dataclasses.replace(
    column.config, epochs=5, examples=4_000, batch_size=64, learning_rate=0.05
)

table = dataclasses.replace(
    full,
    title="CIFAR-10-LT with an imbalance of 100, ResNet-32, reduced to 5 epochs of 4,000 images",
    columns=(dataclasses.replace(column, config=config),),
    rows=tuple(row for row in full.rows if row.label != "gelu"),
    seeds=(0,),
    remarks="Reduced: 5 epochs of 500, one seed of five, no GELU, the first 4,000 of the 12,406 "
    "training images and of the 10,000 test images, batches of 64 and a rate of 0.05, so that two "
    "cores of a CPU can run it. Among 4,000 images of these frequencies are some 16 of the rarest "
    "class, and after so few steps no network has learned the rare classes: it can neither confirm "
    f"nor refute the claim, and is not to be mixed with apa_cifar10_lt. {full.remarks}",
)
