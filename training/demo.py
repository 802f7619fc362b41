"""A first look in under three minutes: LeNet on small images, with PAU and with ReLU.

    python -m training.demo

Run again, it only shows the results; delete runs/demo for a new start.
"""

import contextlib
import os

WORKDIR = "runs/demo"


def main():
    with _silence():
        from training import image_classification
        from training.config import ImageConfig

    print(
        "LeNet learns to read 1,437 images of handwritten digits (8×8 pixels, from scikit-learn)\n"
        "and is tested on 360 others: once with PAU, an activation that is learned, once with ReLU."
    )
    results = {}
    for activation in ("pau", "relu"):
        print(f"\n--- {activation}")
        config = ImageConfig(activation=activation, epochs=15, clip_norm=5.0)
        results[activation] = image_classification.train(config, f"{WORKDIR}/{activation}")

    pau, relu = results["pau"], results["relu"]
    rows = [("", "PAU", "ReLU")]
    for title, name, form in (
        ("test accuracy, last epoch", "final_accuracy", "{:.1%}"),
        ("test accuracy, best epoch", "best_accuracy", "{:.1%}"),
        ("parameters", "parameters", "{:,}"),
        ("seconds per epoch", "seconds_per_epoch", "{:.2f}"),
    ):
        rows.append((title, form.format(pau[name]), form.format(relu[name])))
    print("\n" + "\n".join(f"{title:26}{a:>10}{b:>10}" for title, a, b in rows))
    print(
        f"\nThe functions that PAU learned   {WORKDIR}/pau/activations.png"
        f"\nCurves, histograms, accuracy     tensorboard --logdir {WORKDIR}"
        f'\nThe trained model                keras.saving.load_model("{WORKDIR}/pau/model.keras")'
        "\nA paper's experiment             training/configs, each file opens with its command"
    )


@contextlib.contextmanager
def _silence():
    """Hides what TensorFlow's C++ writes to stderr while it loads, whatever its log level."""
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


if __name__ == "__main__":
    main()
