"""The top-5 accuracies of the runs of pau_table4: nothing else is trained.

13 runs, those that are in the folder of pau_table4.

    python -m training.sweep --table=pau_table4_top5 --workdir=runs/pau_table4
"""

import dataclasses

from training.table import load

full = load("pau_table4")

table = dataclasses.replace(
    full,
    title="ImageNet, MobileNetV2, top 5 (PAU paper, Table 4)",
    metric="final_top5_accuracy",
)
