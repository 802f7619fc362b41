"""VGG-8 with PAU on CIFAR-10, the PAU paper's recipe (○ marks what is reconstructed).

Claim: PAU or RPAU is at least as good as every baseline in most experiments (Table 5 of the paper,
all data sets together: ReLU 34 of 42, swish 41 of 42).
Their successor program, 60 epochs: leaky ReLU 89.2 %, rational 89.3 %.
Source: Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020.

Baselines: the same command with --activation=relu, relu6, leaky_relu, rrelu, elu, celu, swish,
prelu, maxout, mixture, slaf, apl, srelu, rpau. Five seeds: --seed=0 to 4.

    python -m training.image_classification --config=training/configs/cifar10_vgg8_pau.py
"""

from training.config import ImageConfig
from training.recipes import PAU_CIFAR10

config = ImageConfig(dataset="cifar10", network="vgg8", activation="pau", **PAU_CIFAR10)
