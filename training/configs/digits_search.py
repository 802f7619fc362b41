"""A search for activation functions on digits, small enough for one core.

Claim: evolution over formulas, scored by short trainings, finds functions better than ReLU; the
paper's was -x·erf(e^(-x)).
Source: Rahman, He, Wang: EELU, 2024. The grammar and the size of the search are ours ○.

    python -m training.search --config=training/configs/digits_search.py
"""

from training.config import SearchConfig

config = SearchConfig(
    dataset="digits",
    network="lenet",
    clip_norm=5.0,
    epochs=4,
    population=12,
    generations=3,
)
