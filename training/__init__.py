"""Programs that train networks with learnable activations: the first user of keras_learnact.

`python -m training.image_classification`, `python -m training.regression`, `python -m
training.demo`. `--help` lists the flags, `training/configs/` holds the papers' recipes.
"""

import os

# TensorFlow's notes on this machine's processor are not the user's business. Errors still show.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
