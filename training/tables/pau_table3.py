"""Table 3 of the PAU paper: four networks on CIFAR-10, with every activation.

295 runs of 400 epochs over 50,000 images: work for many GPUs.

    python -m training.sweep --table=pau_table3 --download
"""

from training.config import ImageConfig
from training.recipes import PAU_ACTIVATIONS, PAU_CIFAR10
from training.table import Column, Row, Table


def column(label, network, **facts):
    config = ImageConfig(dataset="cifar10", network=network, **PAU_CIFAR10)
    return Column(f"CIFAR-10, {label}", config, **facts)


table = Table(
    title="CIFAR-10 (PAU paper, Table 3)",
    claim="PAU or RPAU is at least as good as every baseline in most experiments.",
    source="Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020, Table 3",
    columns=(
        column(
            "VGG-8",
            "vgg8",
            # Not the paper's own numbers.
            paper={
                "leaky_relu": "89.2 (successor program, 60 epochs)",
                "pau": "89.3 (successor program, 60 epochs)",
            },
        ),
        column("MobileNetV2", "mobilenet_v2"),
        # ○ The noise is 1 % elsewhere, RPAU's default.
        column("ResNet101", "resnet101", overrides={"rpau": {"activation_args": {"noise": 0.1}}}),
        # Its activations come before the convolutions: Maxout has no weights to take pieces from.
        column("DenseNet121", "densenet121", without=("maxout",)),
    ),
    rows=tuple(map(Row, PAU_ACTIVATIONS)),
    learned="pau",
    remarks="The paper's own numbers are not known to us; those of its authors' successor "
    "program stand beside ours. Of the recipe the rates, momentum, weight decay, batch and "
    "RPAU's noise are known second hand only (○), and so is the activations' own rate, which "
    "is said to differ from network to network: ours is 0.01 for all. DenseNet121 has no "
    "Maxout: its activations have no weight layer before them. SLAF is expected to diverge.",
)
