"""ResNet-101 with PAU on CIFAR-10, pruned (○ marks what is reconstructed).

Claim: ResNet-101 with PAU, pruned by 30 %, beats every unpruned network (Fig. 4); PAU is compared
with the best baseline of each network.
Source: Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020, Fig. 4.

The shares, 10 to 60 % of the filters, are reconstructed (○), too. Baselines: the same command with
--activation=relu, leaky_relu, swish, …; one run of each in the paper.

    python -m training.pruning --config=training/configs/cifar10_resnet101_pruning_pau.py
"""

from training.config import PruningConfig
from training.recipes import PAU_CIFAR10

config = PruningConfig(dataset="cifar10", network="resnet101", activation="pau", **PAU_CIFAR10)
