"""How the papers trained: what several presets and tables have in common.

○ marks what is known only second hand, or not at all: our reconstruction, not the paper's word.
"""

# What the PAU paper compares, and what the DEU paper does.
PAU_ACTIVATIONS = (
    "relu relu6 leaky_relu rrelu elu celu swish prelu maxout mixture slaf apl srelu pau rpau"
).split()
DEU_ACTIVATIONS = "relu maxout selu deu".split()

# Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020; MNIST and Fashion-MNIST.
# The activation parameters have a second optimizer of the same kind and rate. The batch is that of
# the authors' program (their successor has 128; 256 ○).
PAU_MNIST = {
    "optimizer": "adam",
    "learning_rate": 0.002,
    "clip_norm": 5.0,
    "epochs": 100,
    "batch_size": 64,
}

# The same paper, CIFAR-10. The activation parameters have a constant rate of their own for each
# network, which is not known, and no weight decay.
PAU_CIFAR10 = {
    "optimizer": "sgd",
    "learning_rate": 0.1,  # ○
    "momentum": 0.9,  # ○
    "schedule": "exponential",
    "decay": 0.985,  # ○
    "weight_decay": 5e-4,  # ○
    "activation_learning_rate": 0.01,  # ○
    "epochs": 400,
    "batch_size": 64,  # ○
}

# The same paper, ImageNet: the framework's example, one optimizer for everything.
PAU_IMAGENET = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "schedule": "steps",
    "decay": 0.1,
    "decay_epochs": (30, 60, 90),
    "weight_decay": 1e-4,  # ○ the framework's example for ResNet
    "epochs": 100,
    "batch_size": 256,  # the framework's example
}

# Torkamani, Shankar, Rooshenas, Wallis: Differential Equation Units, AAAI 2020: Adam; the rest is
# not known.
DEU_MNIST = {
    "optimizer": "adam",
    "learning_rate": 0.001,  # ○
    "epochs": 100,  # ○
    "batch_size": 64,  # ○
    "augmentation": "none",  # ○
}

# The same paper, ResNet-18 on CIFAR-10: "the settings of He et al., 2016", with batches of 128.
DEU_CIFAR10 = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "schedule": "steps",
    "decay": 0.1,
    "decay_epochs": (82, 123),  # He et al.: after 32,000 and 48,000 of 64,000 steps
    "weight_decay": 1e-4,
    "epochs": 164,
    "batch_size": 128,
}

# Alexandridis, Deng, Nguyen, Luo: Adaptive Parametric Activation, ECCV 2024; the command of their
# program for CIFAR-100-LT, which also has three epochs of warm-up, AutoAugment, mixup, a cosine
# classifier, and logits that are corrected for the frequencies of the classes (IIF) when it tests.
APA_CIFAR_LT = {
    "optimizer": "sgd",
    "learning_rate": 0.2,
    "momentum": 0.9,  # their program's default
    "schedule": "cosine",
    "weight_decay": 1e-3,
    "epochs": 500,
    "batch_size": 512,
}
