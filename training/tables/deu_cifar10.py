"""ResNet-18 on CIFAR-10 with the DEU paper's four activations, and what DEU costs in time.

20 runs of 164 epochs over 50,000 images: work for a GPU.

    python -m training.sweep --table=deu_cifar10 --download
"""

from training.config import ImageConfig
from training.recipes import DEU_ACTIVATIONS, DEU_CIFAR10
from training.table import Column, Row, Table

config = ImageConfig(dataset="cifar10", network="resnet18", **DEU_CIFAR10)

table = Table(
    title="CIFAR-10, ResNet-18 (DEU paper)",
    claim="DEU is at least as good as ReLU, Maxout and SELU in layers of equal size.",
    source="Torkamani, Shankar, Rooshenas, Wallis: Differential Equation Units, AAAI 2020",
    columns=(Column("CIFAR-10, ResNet-18", config),),
    rows=tuple(map(Row, DEU_ACTIVATIONS)),
    learned="deu",
    remarks="The paper's numbers are not recoverable. Its recipe is that of He et al., 2016, "
    "with batches of 128. Times can be compared only between runs of one machine that had it "
    "to themselves.",
)
