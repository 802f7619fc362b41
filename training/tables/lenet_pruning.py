"""Pruning as in Fig. 4 of the PAU paper, but of LeNet on MNIST: a fraction of the work.

15 runs of 7 networks with 100 epochs each.

    python -m training.sweep --table=lenet_pruning --download
"""

from training.config import PruningConfig
from training.recipes import PAU_MNIST
from training.table import Column, Row, Table, load

table = Table(
    title="MNIST, LeNet, pruned",
    claim="With PAU a network keeps its accuracy while filters go, at least as long as with the "
    "baselines.",
    source=load("pau_fig4").source,
    columns=(Column("MNIST, LeNet", PruningConfig(dataset="mnist", network="lenet", **PAU_MNIST)),),
    rows=tuple(map(Row, ("relu", "leaky_relu", "pau"))),
    remarks="The figure has larger networks, on CIFAR-10, see pau_fig4; that of LeNet is ours.",
)
