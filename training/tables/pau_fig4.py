"""Fig. 4 of the PAU paper: lottery tickets, accuracy against filters left.

45 runs of 7 networks with 400 epochs each on CIFAR-10: work for many GPUs. The paper shows PAU
beside the best baseline of each network: once pau_table3 is there, --rows=pau and that one.

    python -m training.sweep --table=pau_fig4 --download
"""

import dataclasses

from training.config import PruningConfig
from training.table import load

unpruned = load("pau_table3")
NETWORKS = ("vgg8", "mobilenet_v2", "resnet101")


def pruning(config):
    names = [field.name for field in dataclasses.fields(config)]
    return PruningConfig(**{name: getattr(config, name) for name in names})


table = dataclasses.replace(
    unpruned,
    title="CIFAR-10, pruned (PAU paper, Fig. 4)",
    claim="ResNet-101 with PAU, pruned by 30 %, beats every unpruned network.",
    source="Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020, Fig. 4",
    columns=tuple(
        dataclasses.replace(column, config=pruning(column.config), paper={})
        for column in unpruned.columns
        if column.config.network in NETWORKS
    ),
    seeds=(0,),
    remarks="One run for each network, as in the paper. The recipe is that of pau_table3, with "
    "what is known second hand only (○); so are the shares, 10 to 60 %. Where convolutions lose "
    "filters only together (residual sums, depthwise convolutions) their absolute weights are "
    "added: the paper does not say how it chose there. SLAF is expected to diverge.",
)
