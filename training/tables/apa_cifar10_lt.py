"""ResNet-32 on long-tailed CIFAR-10 with AGLU and others: the claim about imbalanced classes.

25 runs of 500 epochs over 12,406 images: work for a GPU.

    python -m training.sweep --table=apa_cifar10_lt --download
"""

from training.config import ImageConfig
from training.recipes import APA_CIFAR_LT
from training.table import Column, Row, Table

config = ImageConfig(dataset="cifar10", imbalance=100.0, network="resnet32", **APA_CIFAR_LT)

table = Table(
    title="CIFAR-10-LT with an imbalance of 100, ResNet-32 (APA paper)",
    claim="An activation that adapts to the data, APA or AGLU, is better than a fixed one where "
    "classes are imbalanced, most of all on rare classes.",
    source="Alexandridis, Deng, Nguyen, Luo: Adaptive Parametric Activation, ECCV 2024; there "
    "CIFAR-100-LT, and APA in the channel attention of SE-ResNet-32",
    columns=(Column("CIFAR-10-LT, ResNet-32", config),),
    rows=tuple(map(Row, ("relu", "gelu", "pau", "learned_swish", "aglu"))),
    further=("many_accuracy", "medium_accuracy", "few_accuracy"),
    learned="aglu",
    remarks="The ten classes have 5000, 2997, 1796, 1077, 645, 387, 232, 139, 83 and 50 training "
    "images, and 1000 test images each. Many are the first three of them, few the last three, "
    "medium the four between: the literature's limits, more than 100 images and fewer than 20, "
    "are made for hundreds of classes, and would leave no few here. The paper's recipe has more "
    "than its table of rates: AutoAugment, mixup, a cosine classifier and the correction of the "
    "logits for the frequencies of the classes are left out, ReLU in all layers is the baseline, "
    "and AGLU stands in all layers.",
)
