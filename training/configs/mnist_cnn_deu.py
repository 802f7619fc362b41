"""The small convolutional network with DEU on MNIST (○ marks what is reconstructed).

Claim: DEU is at least as good as ReLU, Maxout and SELU in layers of equal size. Their numbers
are not recoverable.
Source: Torkamani, Shankar, Rooshenas, Wallis: Differential Equation Units, AAAI 2020.

Baselines: the same command with --activation=relu, maxout, selu.

    python -m training.image_classification --config=training/configs/mnist_cnn_deu.py
"""

from training.config import ImageConfig
from training.recipes import DEU_MNIST

config = ImageConfig(dataset="mnist", network="cnn", activation="deu", **DEU_MNIST)
