"""Trains an image classifier with any activation, and shows what the activation learned.

    python -m training.image_classification
    python -m training.image_classification --dataset=mnist --network=lenet --activation=pau
    python -m training.image_classification --config=training/configs/cifar10_vgg8_pau.py

The same command again goes on where it was killed, and says so when it has finished.
"""

import math
from pathlib import Path

import keras
import numpy as np

from training import datasets, distribution, feeding, imagenet, loop, networks, optimizers, records
from training.augmentation import augmentation
from training.command_line import from_flags, start
from training.config import ImageConfig, UserError


def new_network(config: ImageConfig, images) -> keras.Model:
    """The network that a run starts with; `images` as `training.networks.build` takes them."""
    unit = networks.Unit(config.activation, **config.activation_args)
    return networks.build(config.network, images, unit, config.width)


def train(config: ImageConfig, workdir: str, start_with=new_network) -> dict:
    """Trains one network and leaves what it learned in `workdir`.

    Resumes a run that was killed, and only reads the result of one that is finished.

    Args:
        config: the run.
        workdir: where all of it goes.
        start_with: makes the network, as `new_network` does. A run that goes on asks again, and
            must get the same variables, whatever their values.

    Returns:
        The metrics of result.json: `best_accuracy` with its epoch, `final_accuracy`, of 100 or more
        classes `final_top5_accuracy`, `diverged`, `parameters`, `seconds_per_epoch`; with an
        `imbalance` also those of `accuracy_by_frequency`.

    Errors: a `UserError` for an unknown name or a workdir of another run; a
    `datasets.MissingDataset` that says how to get it.
    """
    workdir = Path(workdir)
    metrics = records.finished(workdir, config)
    if metrics is not None:
        return metrics
    with distribution.entered(config):
        return _train(config, workdir, start_with)


def main(argv):
    config, workdir = from_flags(ImageConfig)
    metrics = train(config, workdir)
    print(f"{records.summary(metrics)}\nEverything is in {workdir}")


def _train(config, workdir, start_with):
    images, feed = data(config)
    model, trainer = compiled(config, images, feed.steps_per_epoch, start_with)
    print(summary(config, model, images, feed))
    progress = loop.fit(trainer, feed, config, workdir)
    return finish(config, workdir, model, progress, images)


def data(config: ImageConfig):
    """The facts of the images, and the feed that brings them to the network."""
    if config.dataset == "imagenet2012" and config.imbalance != 1:
        raise UserError("ImageNet is read as it is: use --imbalance=1, or another data set.")
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
    # In this order: a long tail has the rare classes first.
    images = images.first(config.examples).long_tailed(config.imbalance)
    return images, feeding.ArrayFeed(images.train, images.test, config.batch_size, config.seed)


def compiled(config: ImageConfig, images, steps_per_epoch: int, start_with=new_network):
    """A new network, which is kept, and with augmentation before it, which is trained."""
    keras.utils.set_random_seed(config.seed)
    model = start_with(config, images)
    name = config.augmentation if config.augmentation != "default" else images.augmentation
    trainer = distribution.current().trainer(
        [keras.Input(images.shape), *augmentation(name, config.seed), model]
    )
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
    return model, trainer


def summary(config: ImageConfig, model: keras.Model, images, feed) -> str:
    """What is trained, in a line."""
    return (
        f"{config.network} with {config.activation} on {images.source}: "
        f"{networks.parameter_count(model):,} parameters, {feed.steps_per_epoch} steps per epoch"
    )


def finish(
    config: ImageConfig, workdir: Path, model: keras.Model, progress: loop.Progress, images, **facts
) -> dict:
    """Writes the model and result.json, with these facts in it; returns its metrics."""
    metrics = _metrics(progress, model)
    if config.imbalance != 1:
        metrics.update(accuracy_by_frequency(model, images))
    if not progress.diverged:
        records.write_model(workdir, config, model)
    records.write_result(workdir, config, model, metrics=metrics, dataset=images.source, **facts)
    return metrics


def accuracy_by_frequency(model: keras.Model, images) -> dict:
    """The accuracy on the test images of frequent, of less frequent and of rare classes.

    The third of the classes with the most training images is "many", that with the fewest "few",
    what is between "medium": of ten classes three, four and three, of two one, none and one; the
    accuracy on none is nan. (Liu et al., 2019, have more than 100 images, 20 to 100, and fewer, for
    sets with hundreds of classes.)

    Args:
        model: it takes pixels and returns logits.
        images: `training.datasets.Images`.
    """
    frequencies = np.bincount(images.train[1], minlength=images.classes)
    order = np.argsort(-frequencies, kind="stable")
    third = max(images.classes // 3, 1)
    inputs, labels = images.test
    right = model.predict(inputs, batch_size=256, verbose=0).argmax(axis=1) == labels
    shots = {"many": order[:third], "medium": order[third:-third], "few": order[-third:]}
    found = {name: right[np.isin(labels, classes)] for name, classes in shots.items()}
    return {
        f"{name}_accuracy": float(those.mean()) if those.size else math.nan
        for name, those in found.items()
    }


def _metrics(progress, model):
    best, final = progress.best("val_accuracy", largest=True), progress.history[-1]
    top5 = final.get("val_top5_accuracy")
    return {
        "best_accuracy": best["val_accuracy"],
        "best_epoch": best["epoch"],
        "final_accuracy": final["val_accuracy"],
        **({} if top5 is None else {"final_top5_accuracy": top5}),
        "diverged": progress.diverged,
        "parameters": networks.parameter_count(model),
        "seconds_per_epoch": progress.seconds_per_epoch(),
    }


if __name__ == "__main__":
    start(ImageConfig, main)
