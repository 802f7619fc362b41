"""LeNet with PAU on MNIST, the PAU paper's recipe.

Claim: PAU matches or beats the best baseline on MNIST for every network.
Their successor program, 100 epochs, 5 seeds: leaky ReLU 98.05 ± 0.18 %, rational 98.48 ± 0.51 %.
Source: Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020.

Baselines: the same command with --activation=relu, relu6, leaky_relu, rrelu, elu, celu, swish,
prelu, maxout, mixture, slaf, apl, srelu, rpau. Five seeds: --seed=0 to 4.

    python -m training.image_classification --config=training/configs/mnist_lenet_pau.py
"""

from training.config import ImageConfig
from training.recipes import PAU_MNIST

config = ImageConfig(dataset="mnist", network="lenet", activation="pau", **PAU_MNIST)
