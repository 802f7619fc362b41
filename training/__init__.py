"""Programs that train networks with learnable activations: the first user of keras_learnact.

`python -m training.sweep` reproduces a table of `training/tables`; `training.image_classification`
and `training.regression` do one run of it, `training.seeds` several seeds at once;
`training.pruning`, `training.search` and `training.demo` are programs of their own. `--help` lists
the flags, `training/configs/` holds the papers' recipes.
"""

import os

# TensorFlow's notes on this machine's processor are not the user's business. Errors still show.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
