"""LeNet on digits with every activation of the PAU paper: complete, on any machine.

75 runs of 20 epochs over 1,437 images; no download.

    python -m training.sweep --table=digits
"""

import dataclasses

from training.config import ImageConfig
from training.recipes import PAU_ACTIVATIONS, PAU_MNIST
from training.table import Column, Row, Table

lenet = ImageConfig(dataset="digits", network="lenet", **PAU_MNIST)

table = Table(
    title="Digits, LeNet",
    claim="None of a paper: digits is ours. The PAU paper's claim for MNIST, held against it: "
    "PAU or RPAU is at least as good as the best baseline.",
    source="Network, recipe and activations: Molina, Schramowski, Kersting: Padé Activation "
    "Units, ICLR 2020",
    columns=(Column("Digits, LeNet", dataclasses.replace(lenet, epochs=20)),),
    rows=tuple(map(Row, PAU_ACTIVATIONS)),
    learned="pau",
    remarks="1,437 training and 360 test images of 8×8 pixels, without augmentation, 20 "
    "epochs: one test image is 0.28 %.",
)
