"""Table 4 of the PAU paper: MobileNetV2 on ImageNet.

13 runs of 100 epochs over 1,281,167 images: work for many GPUs. ImageNet is not free to download:
put its two archives where TensorFlow Datasets looks for them, `<data_dir>/downloads/manual`.

    python -m training.sweep --table=pau_table4 --download
"""

from training.config import ImageConfig
from training.recipes import PAU_ACTIVATIONS, PAU_IMAGENET
from training.table import Column, Row, Table

config = ImageConfig(dataset="imagenet2012", network="mobilenet_v2_imagenet", **PAU_IMAGENET)

table = Table(
    title="ImageNet, MobileNetV2 (PAU paper, Table 4)",
    claim="PAU has the best top-1 accuracy, swish the best top-5.",
    source="Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020, Table 4",
    # Maxout has no weights to take pieces from where the network's own activations are replaced;
    # the paper has no noise for RPAU here.
    columns=(Column("ImageNet, MobileNetV2", config, without=("maxout", "rpau")),),
    rows=tuple(map(Row, PAU_ACTIVATIONS)),
    learned="pau",
    seeds=(0,),
    remarks="One seed, as in the paper, so there is no spread. Which activations the paper "
    "compared here is not known to us (○): ours are those of its other tables, without "
    "Maxout, for which this network has no weight layers, and without RPAU. The weight decay "
    "is ○, too.",
)
