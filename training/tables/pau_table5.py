"""Table 5 of the PAU paper: how often a baseline did not beat PAU or RPAU, in all experiments.

Counted from what the CSV files of tables 2, 3 and 4 hold; nothing is trained.

    python -m training.sweep --table=pau_table5
"""

from training.aggregate import Aggregate

table = Aggregate(
    title="All experiments (PAU paper, Table 5)",
    claim="PAU or RPAU is at least as good as every baseline in most experiments.",
    source="Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020, Table 5",
    of=("pau_table2", "pau_table3", "pau_table4"),
    challengers=("pau", "rpau"),
    paper={
        "relu": (34, 8),
        "relu6": (35, 7),
        "leaky_relu": (34, 8),
        "rrelu": (33, 9),
        "elu": (40, 2),
        "celu": (40, 2),
        "swish": (41, 1),
        "prelu": (39, 3),
        "maxout": (9, 6),
        "mixture": (20, 0),
        "apl": (32, 7),
        "srelu": (33, 8),
    },
    remarks="Each of PAU and RPAU is compared with each baseline in each experiment (a "
    "network on a data set), by the mean of the final test accuracy over the seeds that both "
    "were run with; a run that diverged is worse than one that did not. How the paper comes "
    "to 42 comparisons with ReLU is not known to us, so shares can be compared and counts "
    "cannot. SLAF is not in the paper's table.",
)
