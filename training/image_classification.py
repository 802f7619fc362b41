"""Trains an image classifier with any activation, and shows what the activation learned.

    python -m training.image_classification
    python -m training.image_classification --dataset=mnist --network=lenet --activation=pau
    python -m training.image_classification --config=training/configs/cifar10_vgg8_pau.py

The same command again goes on where it was killed, and says so when it has finished.
"""

from pathlib import Path

import keras

from training import datasets, feeding, imagenet, loop, networks, optimizers, records
from training.augmentation import augmentation
from training.command_line import from_flags, start
from training.config import ImageConfig


def train(config: ImageConfig, workdir: str) -> dict:
    """Trains one network and leaves what it learned in `workdir`.

    Resumes a run that was killed, and only reads the result of one that is finished.

    Returns:
        The metrics of result.json: `best_accuracy` with its epoch, `final_accuracy`, `diverged`,
        `parameters`, `seconds_per_epoch`.

    Errors: a `UserError` for an unknown name or a workdir of another run; a
    `datasets.MissingDataset` that says how to get it.
    """
    workdir = Path(workdir)
    metrics = records.finished(workdir, config)
    if metrics is not None:
        return metrics
    keras.utils.set_random_seed(config.seed)
    images, feed = _data(config)
    unit = networks.Unit(config.activation, **config.activation_args)
    model = networks.build(config.network, images, unit)
    trainer = _compiled(config, model, images, feed.steps_per_epoch)
    print(
        f"{config.network} with {config.activation} on {images.source}: "
        f"{networks.parameter_count(model):,} parameters, {feed.steps_per_epoch} steps per epoch"
    )
    progress = loop.fit(trainer, feed, config, workdir)
    metrics = _metrics(progress, model)
    if not progress.diverged:
        records.write_model(workdir, config, model)
    records.write_result(workdir, config, model, metrics=metrics, dataset=images.source)
    return metrics


def main(argv):
    config, workdir = from_flags(ImageConfig)
    metrics = train(config, workdir)
    print(f"{records.summary(metrics)}\nEverything is in {workdir}")


def _data(config):
    """The facts of the images, and the feed that brings them to the network."""
    load = imagenet.load if config.dataset == "imagenet2012" else _load_arrays
    try:
        return load(config)
    except datasets.MissingDataset as error:
        if not config.quick or config.dataset not in datasets.RECIPES:
            raise
        print(f"{error}\nTHIS QUICK RUN USES GENERATED NOISE INSTEAD.")
    return _arrays(config, datasets.generated_images(config.dataset, config.examples))


def _load_arrays(config):
    return _arrays(config, datasets.load_images(config.dataset, config.data_dir, config.download))


def _arrays(config, images):
    images = images.first(config.examples)
    return images, feeding.ArrayFeed(images.train, images.test, config.batch_size, config.seed)


def _compiled(config, model, images, steps_per_epoch):
    """The model with augmentation before it: that is what is trained, the model what is kept."""
    name = config.augmentation if config.augmentation != "default" else images.augmentation
    trainer = keras.Sequential([keras.Input(images.shape), *augmentation(name, config.seed), model])
    metrics = ["accuracy"]
    if images.classes >= 100:
        metrics.append(keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5_accuracy"))
    trainer.compile(
        optimizers.build(config, steps_per_epoch),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=metrics,
        # TensorFlow takes minutes to optimize the graph of a network with 100 activations: more
        # than it can win back in four steps.
        run_eagerly=config.quick and keras.backend.backend() == "tensorflow",
    )
    return trainer


def _metrics(progress, model):
    best = progress.best("val_accuracy", largest=True)
    return {
        "best_accuracy": best["val_accuracy"],
        "best_epoch": best["epoch"],
        "final_accuracy": progress.history[-1]["val_accuracy"],
        "diverged": progress.diverged,
        "parameters": networks.parameter_count(model),
        "seconds_per_epoch": progress.seconds_per_epoch(),
    }


if __name__ == "__main__":
    start(ImageConfig, main)
