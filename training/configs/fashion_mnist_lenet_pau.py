"""LeNet with PAU on Fashion-MNIST, the PAU paper's recipe.

Claim: PAU is the best activation on Fashion-MNIST for both networks.
Source: Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020.

Baselines: the same command with --activation=relu, relu6, leaky_relu, rrelu, elu, celu, swish,
prelu, maxout, mixture, slaf, apl, srelu, rpau. Five seeds: --seed=0 to 4.

    python -m training.image_classification --config=training/configs/fashion_mnist_lenet_pau.py
"""

from training.config import ImageConfig
from training.recipes import PAU_MNIST

config = ImageConfig(dataset="fashion_mnist", network="lenet", activation="pau", **PAU_MNIST)
