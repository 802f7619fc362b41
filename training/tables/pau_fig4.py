"""Fig. 4 of the PAU paper: lottery tickets, accuracy against filters left (○ marks what is
reconstructed).

45 runs of 7 networks with 400 epochs each on CIFAR-10: work for GPUs. The paper shows PAU beside
the best baseline of each network: after pau_table3 that is --rows=pau,… with one more.

    python -m training.sweep --table=pau_fig4 --download
"""

from training.config import PruningConfig
from training.recipes import PAU_ACTIVATIONS, PAU_CIFAR10
from training.table import Column, Row, Table

table = Table(
    title="CIFAR-10, pruned (PAU paper, Fig. 4)",
    claim="ResNet-101 with PAU, pruned by 30 %, beats every unpruned network.",
    source="Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020, Fig. 4",
    columns=tuple(
        # ○ The shares, 10 … 60 %, are those of PruningConfig.
        Column(f"CIFAR-10, {label}", PruningConfig(dataset="cifar10", network=name, **PAU_CIFAR10))
        for label, name in (
            ("VGG-8", "vgg8"),
            ("MobileNetV2", "mobilenet_v2"),
            ("ResNet-101", "resnet101"),
        )
    ),
    rows=tuple(map(Row, PAU_ACTIVATIONS)),
    seeds=(0,),
    remarks="One run for each network, as in the paper. ○ The shares that are removed, and what "
    "training/recipes.py marks, are reconstructed. Where convolutions can lose filters only "
    "together (residual sums, depthwise convolutions) their absolute weights are added: the paper "
    "does not say how it chose there.",
)
