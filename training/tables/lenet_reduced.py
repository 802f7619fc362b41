"""The LeNet columns of the PAU paper's Table 2, much reduced: for machines without a GPU.

90 runs of 2 epochs over the first 30,000 of 60,000 images.

    python -m training.sweep --table=lenet_reduced --download
"""

import dataclasses

from training.table import load

full = load("pau_table2")

table = dataclasses.replace(
    full,
    title="MNIST and Fashion-MNIST, LeNet, reduced to 2 epochs of 30,000 images",
    columns=tuple(
        dataclasses.replace(
            column, config=dataclasses.replace(column.config, epochs=2, examples=30_000), paper={}
        )
        for column in full.columns
        if column.config.network == "lenet"
    ),
    seeds=(0, 1, 2),
    remarks="Reduced: 2 epochs of the paper's 100, 3 seeds of its 5, and the first 30,000 of "
    "60,000 training images, so that two cores of a CPU can run all activations; tested on "
    "all 10,000 test images. It shows how fast the networks learn, not how far they come: it "
    "can neither confirm nor refute the claim, and is not to be mixed with pau_table2.",
)
