"""LeNet with randomised PAU (noise 1 %) on MNIST, the PAU paper's recipe.

Claim: PAU or RPAU is at least as good as every baseline in most experiments (Table 5 of the paper:
ReLU 34 of 42, swish 41 of 42).
Source: Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020.

    python -m training.image_classification --config=training/configs/mnist_lenet_rpau.py
"""

from training.config import ImageConfig
from training.recipes import PAU_MNIST

config = ImageConfig(
    dataset="mnist",
    network="lenet",
    activation="rpau",
    activation_args={"noise": 0.01},
    **PAU_MNIST,
)
