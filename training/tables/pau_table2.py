"""Table 2 of the PAU paper: two networks on MNIST and on Fashion-MNIST, with every activation.

300 runs of 100 epochs over 60,000 images: work for a GPU.

    python -m training.sweep --table=pau_table2 --download
"""

from training.config import ImageConfig
from training.recipes import PAU_ACTIVATIONS, PAU_MNIST
from training.table import Column, Row, Table

# Not the paper's own numbers: what the authors' successor program gives, 100 epochs and 5 seeds.
SUCCESSOR = {
    ("MNIST", "LeNet"): {
        "leaky_relu": "98.05 ± 0.18 (successor program)",
        "pau": "98.48 ± 0.51 (successor program)",
    }
}

table = Table(
    title="MNIST and Fashion-MNIST (PAU paper, Table 2)",
    claim="PAU matches or beats the best baseline on MNIST for every network, and is the best "
    "activation on Fashion-MNIST for both.",
    source="Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020, Table 2",
    columns=tuple(
        Column(
            f"{images}, {network}",
            ImageConfig(dataset=dataset, network=name, **PAU_MNIST),
            paper=SUCCESSOR.get((images, network), {}),
        )
        for images, dataset in (("MNIST", "mnist"), ("Fashion-MNIST", "fashion_mnist"))
        for network, name in (("VGG-8", "vgg8"), ("LeNet", "lenet"))
    ),
    rows=tuple(map(Row, PAU_ACTIVATIONS)),
    learned="pau",
    remarks="The paper's own numbers are not known to us; those of its authors' successor "
    "program stand beside ours. SLAF is expected to diverge.",
)
