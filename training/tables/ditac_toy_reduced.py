"""DiTAC's toy problems with fewer epochs, folds and seeds, for one CPU.

10 runs of 150 and 300 epochs, in two folds; no download.

    python -m training.sweep --table=ditac_toy_reduced
"""

import dataclasses

from training.table import load

full = load("ditac_toy")
sines, signal = full.columns

table = dataclasses.replace(
    full,
    title=f"{full.title}, reduced",
    columns=(
        dataclasses.replace(sines, config=dataclasses.replace(sines.config, epochs=150, folds=2)),
        dataclasses.replace(signal, config=dataclasses.replace(signal.config, folds=2)),
    ),
    rows=tuple(row for row in full.rows if row.activation != "deu"),
    seeds=(0,),
    remarks="Reduced: 2 folds of 3, one seed of 5, 150 epochs of 300 of the sines, no DEU, so that "
    f"one core can run it; not to be mixed with ditac_toy. {full.remarks}",
)
