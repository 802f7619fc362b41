"""The widths of deu_compactness with 2 of 100 epochs, for machines without a GPU.

24 runs of 2 epochs over 60,000 images.

    python -m training.sweep --table=deu_compactness_reduced --download
"""

import dataclasses

from training.table import load

full = load("deu_compactness")

table = dataclasses.replace(
    full,
    title="MNIST, perceptrons of four widths, reduced to 2 epochs",
    columns=tuple(
        dataclasses.replace(column, config=dataclasses.replace(column.config, epochs=2))
        for column in full.columns
    ),
    seeds=(0, 1),
    remarks="Reduced: 2 epochs of 100 ○ and 2 seeds of 5, over all 60,000 images, so that two "
    "cores of a CPU can run it. A wide network learns faster than a narrow one, so 2 epochs "
    "do not show how good a narrow one becomes. Not to be mixed with deu_compactness.",
)
