"""LeNet with PAU on MNIST, pruned: lottery tickets, the PAU paper's recipe.

Claim: ours, for machines without a GPU. The paper's Fig. 4 has larger networks; of them it says:
ResNet-101 with PAU, pruned by 30 %, beats every unpruned network.
Source: Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020, Fig. 4.

The shares, 10 to 60 % of the filters, are reconstructed (○). Baselines: the same command with
--activation=relu, leaky_relu, swish, …; one run of each in the paper.

    python -m training.pruning --config=training/configs/mnist_lenet_pruning_pau.py
"""

from training.config import PruningConfig
from training.recipes import PAU_MNIST

config = PruningConfig(dataset="mnist", network="lenet", activation="pau", **PAU_MNIST)
