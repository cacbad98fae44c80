"""The base config, complete and commented; every other config overrides only what differs.

Trains a small convolutional net with SAM on the 1,797 digits that scikit-learn ships.

  python -m sam_jax.train --config=configs/digits.py --workdir=runs/digits

Hardware: two CPU cores, 20 seconds. Expected: test accuracy 99.8 +- 0.1 %, test loss 0.021 +- 0.001
(mean and standard error, seeds 0 to 2).

Any field can be given on the command line, --config.method.rho=0.1; configs/digits.py:smoke is the
same program shrunk to seconds.
"""

import ml_collections


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = ml_collections.ConfigDict()

    config.seed = 0  # every random number of the run derives from it
    config.epochs = 30
    config.batch_size = 32  # over all devices
    config.steps_per_call = 0  # steps compiled into one call; 0: a whole epoch
    config.matmul_precision = "default"  # of training; evaluation always uses "highest"

    config.data = ml_collections.ConfigDict()
    config.data.name = "digits"  # digits, cifar10, cifar100, fashion_mnist, svhn_cropped
    config.data.data_dir = ""  # where prepared sets lie; empty: TensorFlow Datasets' own default
    config.data.train_examples = 0  # train on so many examples, evenly spaced; 0: on all
    config.data.synthetic_examples = 0  # artificial data in the same format, to try a program out
    # Applied in this order: autoaugment_cifar10, autoaugment_svhn, flip, crop_zero, crop_reflect,
    # cutout.
    config.data.augmentation = ("crop_zero",)
    config.data.pad = 1  # pixels on each side before the random crop
    config.data.cutout_size = 16  # side of the square, in pixels

    config.model = ml_collections.ConfigDict()
    config.model.name = "small_conv_net"  # small_conv_net, mobilenet_v2, wide_resnet
    config.model.dtype = "float32"  # of the computation, or bfloat16; parameters stay float32

    config.method = ml_collections.ConfigDict()
    config.method.name = "sam"  # none, sam, asam, average_sam
    config.method.rho = 0.05  # radius of the perturbation
    config.method.norm_order = 2.0  # sam: p of the p-norm
    config.method.eta = 0.01  # asam: added to |w|
    config.method.m = 0  # examples that share a perturbation; 0: the batch of one device
    config.method.strategy = "scan"  # how sub-batches run: scan (less memory) or vmap
    # Running statistics of batch norm come from the pass at w ("clean", as in the first SAM
    # release) or at w + epsilon ("perturbed"). average_sam has only the latter pass.
    config.method.statistics_from = "clean"

    config.optimiser = ml_collections.ConfigDict()
    config.optimiser.learning_rate = 0.1  # at its highest; cosine to zero by step
    config.optimiser.warmup_epochs = 0.0  # linear from zero
    config.optimiser.momentum = 0.9
    config.optimiser.nesterov = True
    config.optimiser.clip_norm = 5.0  # global norm of the gradient; 0: no clipping
    config.optimiser.weight_decay = 5e-4  # on all parameters
    # "update": added to the clipped gradient (the study). "loss": 0.5 * weight_decay * ||w||^2 in
    # the loss, hence in both passes and before clipping (google-research/sam).
    config.optimiser.weight_decay_in = "update"

    config.loss = ml_collections.ConfigDict()
    config.loss.label_smoothing = 0.0

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.batch_size = 480  # bounds the memory, not the result
    config.evaluation.test_every_epochs = 1  # 0: only at the end
    config.evaluation.train_every_epochs = 0  # the training set without augmentation

    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.every_epochs = 10  # and the last
    config.checkpoint.keep = 1  # the newest so many

    # What python -m sam_jax.evaluate measures.
    config.instruments = ml_collections.ConfigDict()
    config.instruments.seed = 0  # of examples, noise and directions: the same for every model
    config.instruments.examples = 0  # of the sound preset, out of the training set; 0: all
    config.instruments.batch_size = 480  # of whole-set losses; bounds the memory, not the result
    config.instruments.adversarial = ml_collections.ConfigDict()
    config.instruments.adversarial.m = (32, 144)  # batch of one ascent gradient
    config.instruments.adversarial.rho = (0.05, 0.1, 0.2)
    config.instruments.adversarial.batches = 4  # of the published preset
    config.instruments.average = ml_collections.ConfigDict()
    config.instruments.average.m = (32, 144)
    config.instruments.average.rho = (0.5, 1.0)
    config.instruments.average.batches = 1  # of the published preset
    config.instruments.average.draws = 15
    config.instruments.asymmetry = ml_collections.ConfigDict()
    # The study's distance. On this net a random direction moves each weight by 0.04 there; at a
    # distance of 1 the loss is so flat that one side often lies below the minimum.
    config.instruments.asymmetry.distance = 5.0
    config.instruments.asymmetry.num_directions = 30
    config.instruments.curve = ml_collections.ConfigDict()
    config.instruments.curve.limit = 5.0  # distances from -limit to limit
    config.instruments.curve.points = 21

    if variant == "smoke":
        smoke(config)
    elif variant:
        raise ValueError(f'the only variant is "smoke", got {variant!r}.')
    return config.lock()  # a misspelt field is an error, here and on the command line


def smoke(config: ml_collections.ConfigDict) -> None:
    """Shrink a config to seconds: artificial data of the same format, two epochs, few draws."""
    config.epochs = 2
    config.batch_size = 32
    config.data.synthetic_examples = 64
    config.data.train_examples = 0
    config.steps_per_call = 0
    config.instruments.examples = 0
    config.instruments.adversarial.m = (16, 32)
    config.instruments.adversarial.batches = 2
    config.instruments.average.m = (16, 32)
    config.instruments.average.draws = 3
    config.instruments.asymmetry.num_directions = 3
    config.instruments.curve.points = 5
