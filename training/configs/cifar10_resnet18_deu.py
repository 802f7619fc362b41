"""ResNet-18 with DEU on CIFAR-10, in the settings of He et al., 2016.

Claim: DEU is at least as good as ReLU, Maxout and SELU in layers of equal size. Their numbers
are not recoverable.
Source: Torkamani, Shankar, Rooshenas, Wallis: Differential Equation Units, AAAI 2020.

Baselines: the same command with --activation=relu, maxout, selu.

    python -m training.image_classification --config=training/configs/cifar10_resnet18_deu.py
"""

from training.config import ImageConfig
from training.recipes import DEU_CIFAR10

config = ImageConfig(dataset="cifar10", network="resnet18", activation="deu", **DEU_CIFAR10)
