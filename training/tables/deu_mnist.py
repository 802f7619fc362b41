"""The DEU paper's two small networks on MNIST and Fashion-MNIST.

80 runs of 100 epochs over 60,000 images: work for a GPU.

    python -m training.sweep --table=deu_mnist --download
"""

from training.config import ImageConfig
from training.recipes import DEU_ACTIVATIONS, DEU_MNIST
from training.table import Column, Row, Table

table = Table(
    title="MNIST and Fashion-MNIST, MLP and CNN (DEU paper)",
    claim="DEU is at least as good as ReLU, Maxout and SELU in layers of equal size.",
    source="Torkamani, Shankar, Rooshenas, Wallis: Differential Equation Units, AAAI 2020",
    columns=tuple(
        Column(f"{images}, {network}", ImageConfig(dataset=dataset, network=name, **DEU_MNIST))
        for images, dataset in (("MNIST", "mnist"), ("Fashion-MNIST", "fashion_mnist"))
        for network, name in (("MLP 1024-512", "mlp"), ("CNN 32-16", "cnn"))
    ),
    rows=tuple(map(Row, DEU_ACTIVATIONS)),
    learned="deu",
    remarks="The paper's numbers are not recoverable; its optimizer is Adam, and its rate, "
    "batch, epochs and the size of its convolutions are not known (○ ours). Maxout's layers "
    "have twice as many weights.",
)
