"""A search for activation functions on digits, small enough for one core.

Claim: evolution over formulas finds activation functions; the paper's search found -x·erf(e^(-x)).
Here, 32 functions, 4 epochs each: -sin(erf(tanh(x) - |x|)), on the test set 97.72 ± 0.82 % over 5
seeds; ReLU 95.61 ± 0.99 %, -x·erf(e^(-x)) 96.83 ± 0.61 %: training/results/search_digits.md.
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
    generations=2,
)
