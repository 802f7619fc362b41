"""MobileNetV2 with PAU on ImageNet, the PAU paper's recipe.

Claim: PAU has the best top-1 accuracy, swish the best top-5.
Source: Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020.

Baselines: the same command with --activation=relu6 or swish. Needs TensorFlow, on any backend.

    python -m training.image_classification --config=training/configs/imagenet_mobilenetv2_pau.py
"""

from training.config import ImageConfig
from training.recipes import PAU_IMAGENET

config = ImageConfig(
    dataset="imagenet2012", network="mobilenet_v2_imagenet", activation="pau", **PAU_IMAGENET
)
