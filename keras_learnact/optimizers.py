"""Training activation parameters by rules of their own."""

import keras
from keras import ops

from keras_learnact.layers.base import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
def is_activation_parameter(variable) -> bool:
    """Whether a variable is a parameter of a `LearnableActivation`."""
    return getattr(variable, "activation_parameter", False)


@keras.saving.register_keras_serializable(PACKAGE)
class ActivationOptimizer(keras.optimizers.Optimizer):
    """Gives the parameters of learnable activations a learning rate of their own and no decay.

    `ActivationOptimizer(SGD(0.1, momentum=0.9, weight_decay=5e-4), activation_learning_rate=0.02)`
    trains every weight of a model with that SGD, except the activation parameters: these are
    trained with SGD(0.02, momentum=0.9).

    `learning_rate` is that of `optimizer`: it is what a `LearningRateScheduler` or
    `ReduceLROnPlateau` reads and sets. The other one is `activation_optimizer.learning_rate`.

    The `global_clipnorm` of `optimizer` bounds the norm of all gradients together, those of the
    activation parameters included, as PyTorch's `clip_grad_norm_(model.parameters(), …)` does.
    A `global_clipnorm` of `activation_optimizer` bounds those of the activation parameters only.
    Under `tf.distribute` it bounds the norm of the gradients' sum over the replicas, where Keras'
    optimizers bound that of every replica's own.
    All other settings act on the variables of their own optimizer.

    Args:
        optimizer: what trains all other variables: a Keras optimizer, or the name of one.
        activation_learning_rate: a number or a Keras learning-rate schedule. The activation
            parameters are then trained by a copy of `optimizer` with this learning rate and
            without weight decay. Default: the learning rate that `optimizer` has now.
        activation_optimizer: the optimizer of the activation parameters, instead of a copy.
        select: a function of a `keras.Variable`: is it an activation parameter? Register it with
            `keras.saving.register_keras_serializable`, so that a saved model finds it. Default:
            `is_activation_parameter`, every parameter of this package's activations. A function
            that also counts in the slopes of Keras' own PReLU:
            `lambda v: is_activation_parameter(v) or v.name == "alpha"`.
        name: name of the optimizer.

    Errors:
        ValueError: both `activation_learning_rate` and `activation_optimizer` are given; one
            optimizer is given twice; the two optimizers scale the loss differently; an optimizer
            is a `LossScaleOptimizer` (that goes around this one: under `mixed_float16`
            `compile` puts it there); `global_clipnorm` is used with
            `gradient_accumulation_steps`.

    Example:

    >>> sgd = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=5e-4)
    >>> model.compile(ActivationOptimizer(sgd, activation_learning_rate=0.02), loss="mse")

    Reference: separate optimizers for weights and activation parameters are the CIFAR-10 recipe
    of Molina, Schramowski, Kersting, 2020 (Padé Activation Units).
    """

    def __init__(
        self,
        optimizer,
        activation_learning_rate=None,
        activation_optimizer=None,
        select=is_activation_parameter,
        name="activation_optimizer",
    ):
        optimizer = keras.optimizers.get(optimizer)
        if activation_optimizer is None:
            activation_optimizer = _copy_without_decay(optimizer, activation_learning_rate)
        elif activation_learning_rate is not None:
            raise ValueError(
                "ActivationOptimizer takes `activation_learning_rate` or `activation_optimizer`, "
                "not both: an optimizer has its own learning rate. Received: "
                f"activation_learning_rate={activation_learning_rate}, "
                f"activation_optimizer={activation_optimizer}"
            )
        else:
            activation_optimizer = keras.optimizers.get(activation_optimizer)
        if activation_optimizer is optimizer:
            raise ValueError(
                "ActivationOptimizer needs two optimizers, because each keeps its own state. "
                f"Received: {optimizer} for both. Leave `activation_optimizer` out to get a copy."
            )
        for part in (optimizer, activation_optimizer):
            if isinstance(part, keras.optimizers.LossScaleOptimizer):
                raise ValueError(
                    "ActivationOptimizer cannot hold a LossScaleOptimizer. Received: "
                    f"{part}. Put it around: LossScaleOptimizer(ActivationOptimizer(…))."
                )
        if optimizer.loss_scale_factor != activation_optimizer.loss_scale_factor:
            raise ValueError(
                "ActivationOptimizer needs the same `loss_scale_factor` in both optimizers, "
                "because there is one loss. Received: "
                f"{optimizer.loss_scale_factor} and {activation_optimizer.loss_scale_factor}"
            )
        if optimizer.global_clipnorm and optimizer.gradient_accumulation_steps:
            raise ValueError(
                "ActivationOptimizer cannot bound the norm of all gradients together when each "
                "optimizer accumulates its own. Received: "
                f"global_clipnorm={optimizer.global_clipnorm}, gradient_accumulation_steps="
                f"{optimizer.gradient_accumulation_steps}. Use `clipnorm`, which bounds the norm "
                "of each variable's gradient, or larger batches."
            )
        super().__init__(learning_rate=0.0, name=name)  # never read: see `learning_rate`
        self.optimizer = optimizer
        self.activation_optimizer = activation_optimizer
        self.select = select

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        for optimizer, share in self._shares(variables):
            optimizer.build([variable for variable, _ in share])

    def apply(self, grads, trainable_variables=None):
        if len(grads) == 0:
            return  # as every Keras optimizer: a model may have nothing to train
        if trainable_variables is None:
            if not self.built:
                raise ValueError(
                    "ActivationOptimizer does not know its variables yet. Received: "
                    "trainable_variables=None. Give them, or call build(variables) first."
                )
            trainable_variables = self._trainable_variables
        trainable_variables = list(trainable_variables)
        self.build(trainable_variables)
        grads, trainable_variables = self._filter_empty_gradients(list(grads), trainable_variables)
        grads = self._clip_together(grads, trainable_variables)
        for optimizer, share in self._shares(trainable_variables, grads):
            optimizer.apply([grad for _, grad in share], [variable for variable, _ in share])
        self._iterations.assign_add(1)

    def _shares(self, variables, grads=None):
        """Each optimizer with its share of the variables, as pairs (variable, gradient)."""
        shares = [], []
        for variable, grad in zip(variables, grads or [None] * len(variables), strict=True):
            shares[bool(self.select(variable))].append((variable, grad))
        return zip((self.optimizer, self.activation_optimizer), shares, strict=True)

    def _clip_together(self, grads, variables):
        if not self.optimizer.global_clipnorm:
            return grads
        # The optimizers divide by the loss scale later, so the bound is scaled, too. After this
        # no share of the gradients has a larger norm, so `optimizer` itself clips nothing more.
        bound = self.optimizer.global_clipnorm * (self.loss_scale_factor or 1.0)
        # Variables whose "gradient" is their next value (float8 scales) are no part of the norm.
        clipped = [not getattr(v, "overwrite_with_gradient", False) for v in variables]
        grads, replicas = _averaged(grads)
        norm = replicas * ops.sqrt(
            sum(
                ops.sum(ops.square(ops.cast(grad, "float32")))
                for grad, clip in zip(grads, clipped, strict=True)
                if clip
            )
        )
        scale = bound / ops.maximum(norm, bound)
        return [
            ops.multiply(grad, ops.cast(scale, grad.dtype)) if clip else grad
            for grad, clip in zip(grads, clipped, strict=True)
        ]

    @property
    def variables(self):
        return self._variables + self.optimizer.variables + self.activation_optimizer.variables

    @property
    def learning_rate(self):
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.optimizer.learning_rate = learning_rate

    @property
    def iterations(self):
        steps = self.optimizer.gradient_accumulation_steps
        return ops.floor_divide(self._iterations, steps) if steps else self._iterations

    @property
    def loss_scale_factor(self):
        return self.optimizer.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor):
        # Keras' constructor sets it before there are optimizers; LossScaleOptimizer sets it after.
        if hasattr(self, "activation_optimizer"):
            self.optimizer.loss_scale_factor = factor
            self.activation_optimizer.loss_scale_factor = factor

    def scale_loss(self, loss):
        return self.optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        for optimizer, share in self._shares(var_list):
            optimizer.finalize_variable_values([variable for variable, _ in share])

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "optimizer": serialize(self.optimizer),
            "activation_optimizer": serialize(self.activation_optimizer),
            "select": serialize(self.select),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            key: keras.saving.deserialize_keras_object(config[key], custom_objects)
            for key in ("optimizer", "activation_optimizer", "select")
        }
        return cls(**{**config, **parts})


def _averaged(grads):
    """The gradients as means over the replicas of `tf.distribute`, and how many replicas there are.

    Each optimizer sums over the replicas once more, which makes the means the sums they should be.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        replica = tf.distribute.get_replica_context()
        if replica is not None and replica.num_replicas_in_sync > 1:
            grads = replica.all_reduce(tf.distribute.ReduceOp.MEAN, grads)
            return grads, replica.num_replicas_in_sync
    return grads, 1


def _copy_without_decay(optimizer, learning_rate):
    config = optimizer.get_config()
    if learning_rate is not None:
        config["learning_rate"] = learning_rate
    if config.get("weight_decay") is not None:
        config["weight_decay"] = 0.0  # not None, which AdamW refuses
    return type(optimizer).from_config(config)
