"""The base config, complete and commented; every other config overrides only what differs.

Trains a small convolutional net with SAM on the 1,797 digits that scikit-learn ships.

  python -m sam_jax.train --config=configs/digits.py --workdir=runs/digits

Hardware: two CPU cores, 20 seconds. Expected: test accuracy 99.8 +- 0.1 %, test loss 0.021 +- 0.001
(mean and standard error, seeds 0 to 2).

Any field can be given on the command line, --config.method.rho=0.1; configs/digits.py:smoke is the
same program shrunk to seconds.
"""

import ml_collections
from ml_collections import config_dict


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = ml_collections.ConfigDict()

    config.seed = 0  # every random number of the run derives from it
    config.epochs = 30
    config.batch_size = 32  # over all devices
    config.steps_per_call = 0  # steps compiled into one call; 0: an epoch, or about 4096 images
    config.matmul_precision = "default"  # of training; evaluation always uses "highest"
    # At a loss or gradient that is not finite: "stop" at that step, keep the last checkpoint and
    # name the first such quantity; "skip" the step, which changes nothing but its number, and count
    # it in the records; or "continue". Neither this nor the next field belongs to what a folder
    # compares: change them to go on.
    config.on_nonfinite = "stop"
    # A mean loss of an epoch above so many times the loss of the first step is a warning and
    # `diverged` in the record; 0: never.
    config.divergence_factor = 10.0
    # What gets the finite numbers of every epoch besides metrics.jsonl: "tensorboard", "wandb",
    # "mlflow", or () for none. It may change as a run goes on, too. The last two are extras.
    config.writers = ("tensorboard",)

    # The axes of the devices and their sizes; -1: the devices that are left. All but "model" split
    # the batch.
    config.mesh = (("data", -1), ("model", 1))
    # The axes that split the parameters, and with them the states of method and optimiser: () for
    # whole ones on every device, ("data",) for FSDP, ("model",) or both for models that are larger.
    config.split_parameters = ()
    # Of the compiled step: "shard_map", "jit" with sharded arrays, or "auto": shard_map where every
    # device has all parameters. Both compute the same numbers.
    config.step_form = "auto"

    config.data = ml_collections.ConfigDict()
    # The digits, or any image classification set of TensorFlow Datasets, such as "cifar10", "mnist"
    # or "imagenet_resized/32x32". This name and `python -m sam_jax.data.prepare NAME` are all.
    config.data.name = "digits"
    config.data.data_dir = ""  # where prepared sets lie; empty: TensorFlow Datasets' own default
    config.data.train_examples = 0  # train on so many examples, evenly spaced; 0: on all
    # Hold out so many training examples, evenly spaced, to be evaluated as the test set is. The
    # others are trained on, or train_examples of them.
    config.data.validation_examples = 0
    config.data.train_split = "train"  # or several, such as "train+extra" of svhn_cropped
    # Every image is cropped to a square of this side when it is read: at random in a training, the
    # centre in an evaluation. 0: images stay as they are, but imagenet2012 is cropped to 224.
    config.data.image_size = 0
    # The share of training labels that are replaced, in [0, 1]; test labels stay. symmetric: by any
    # other label; asymmetric: in CIFAR-10 by the usual confusions, elsewhere by the next label. The
    # records then tell clean and noisy examples apart.
    config.data.label_noise = 0.0
    config.data.label_noise_kind = "symmetric"
    config.data.label_noise_seed = 0  # its own: the same noise for all seeds of a study
    config.data.synthetic_examples = 0  # artificial data in the same format, to try a program out
    # "never": the set lies whole on every device. "always": batches are read from disk when they
    # are needed, in the same order. "auto" reads so where the set takes more than a quarter
    # of a device's memory. Where the device does not tell its memory, as CPUs, the limit is 4 GiB.
    config.data.streaming = "auto"
    # None means the set's own in sam_jax/data/sources.py (for the digits, crop_zero with a pad of
    # 1). For a set that is not there it means crop_zero with a pad of an eighth of the image.
    # With an image_size it means of these flip alone. A tuple of names is applied in its order, ()
    # means none: flip, crop_zero, crop_reflect, cutout, randaugment, autoaugment_cifar10,
    # autoaugment_svhn (levels of the authors' code), autoaugment_cifar10_torchvision,
    # autoaugment_svhn_torchvision.
    config.data.augmentation = config_dict.placeholder(tuple)
    config.data.pad = config_dict.placeholder(int)  # pixels on each side before the random crop
    config.data.cutout_size = config_dict.placeholder(int)  # side of the square, in pixels
    config.data.randaugment_layers = 2  # operations of an image by randaugment
    config.data.randaugment_magnitude = 9  # of each, 0 to 30; it moves images by 10 pixels a unit
    # alpha of mixup, which follows the augmentation, and which cutout follows; 0: no mixup. Labels
    # are then shares of two classes. google-research/sam has 1.
    config.data.mixup = 0.0

    config.model = ml_collections.ConfigDict()
    # small_conv_net, mobilenet_v2, resnet, preact_resnet, wide_resnet, wide_resnet_shake_shake,
    # pyramid_net; for larger images imagenet_resnet, efficientnet, vision_transformer. A config may
    # also set the other attributes of its model's class, inside `with config.unlocked():`.
    config.model.name = "small_conv_net"
    config.model.dtype = "float32"  # of the computation, or bfloat16; parameters stay float32
    # Of the norms in training: one pass, which is off by a tenth where a mean is 1000 standard
    # deviations. False takes two passes, and no more memory; on a CPU a gradient then takes 1 %
    # (resnet) to 13 % (mobilenet_v2) longer. Measurements always take two.
    config.model.use_fast_variance = True

    config.method = ml_collections.ConfigDict()
    # "none" is the plain optimiser; the others are the functions of sam_jax by their names: sam,
    # usam, unified_sam, average_sam, multi_step_sam, previous_batch_sam, asam, gsam, fisher_sam,
    # esam, ss_sam, looksam, saf, mesa, friendly_sam, vasso, wsam, decoupled_wsam, momentum_sam,
    # sam_on, layer_sam, interval_sam, late_phase_sam, ae_sam, stable_sam, smooth_out, weight_noise,
    # awp, amp, entropy_sgd, extrap_sgd.
    config.method.name = "sam"
    config.method.rho = 0.05  # radius of the perturbation; each method's scale is in its docstring
    config.method.norm_order = 2.0  # sam, asam, previous_batch_sam: p of the p-norm
    config.method.eta = 0.01  # asam: added to |w|
    # Examples that share a perturbation; 0: the batch of one device. A run keeps the m that it
    # began with: on another number of devices it goes on only with that m set here.
    config.method.m = 0
    # The same in devices, where m is 0: "local", "all", or how many of them, neighbours in JAX's
    # order, average the gradient that makes the perturbation, as "4".
    config.method.synchronise = "local"
    # The part of the training with the method; the steps before and after take the plain gradient.
    config.method.from_share = 0.0
    config.method.until_share = 1.0
    config.method.strategy = "scan"  # how sub-batches run: scan (less memory) or vmap
    # Running statistics of batch norm come from the pass at w ("clean", as in the first SAM
    # release) or at w + epsilon ("perturbed"). average_sam has only the latter pass.
    config.method.statistics_from = "clean"

    method_options(config)

    config.optimiser = ml_collections.ConfigDict()
    config.optimiser.name = "sgd"  # sgd, rmsprop (as EfficientNet's), adamw (as transformers')
    config.optimiser.learning_rate = 0.1  # at its highest
    config.optimiser.warmup_epochs = 0.0  # linear from zero; the schedule begins after it
    # By step: "cosine" (to zero), "exponential", "linear", "piecewise" or "constant".
    config.optimiser.schedule = "cosine"
    config.optimiser.exponential = ml_collections.ConfigDict()
    config.optimiser.exponential.end = 0.012  # what is left at the end, as a share of the highest
    config.optimiser.linear = ml_collections.ConfigDict()
    config.optimiser.linear.end = 0.0  # likewise
    config.optimiser.piecewise = ml_collections.ConfigDict()
    config.optimiser.piecewise.boundaries = (0.5, 0.75)  # shares of the training
    config.optimiser.piecewise.factors = (0.1, 0.01)  # of the highest, from each boundary on
    config.optimiser.momentum = 0.9  # sgd, rmsprop
    config.optimiser.nesterov = True  # sgd
    config.optimiser.rmsprop = ml_collections.ConfigDict()
    config.optimiser.rmsprop.decay = 0.9  # of the mean of squared gradients
    config.optimiser.rmsprop.epsilon = 0.001  # inside the square root
    config.optimiser.rmsprop.initial = 1.0  # that mean before the first step, 1 in TensorFlow 1
    config.optimiser.adamw = ml_collections.ConfigDict()
    config.optimiser.adamw.beta1 = 0.9
    config.optimiser.adamw.beta2 = 0.999
    config.optimiser.adamw.epsilon = 1e-8
    config.optimiser.clip_norm = 5.0  # global norm of the gradient; 0: no clipping
    config.optimiser.weight_decay = 5e-4
    # "all" parameters, or "not_norms": those with more than one axis, without norms and biases.
    config.optimiser.weight_decay_on = "all"
    # "update": added to the clipped gradient (the study), and by adamw to the update itself.
    # "loss": 0.5 * weight_decay * ||w||^2 in the loss, hence in both passes and before clipping
    # (google-research/sam).
    config.optimiser.weight_decay_in = "update"

    # Averaged weights, where there are any, are evaluated and measured in place of the last ones,
    # with batch norm statistics computed again on the training set.
    config.weight_average = ml_collections.ConfigDict()
    config.weight_average.name = "none"  # none, swa, ema
    config.weight_average.decay = 0.999  # ema: about the last 1 / (1 - decay) steps count
    # ema: whether the decay is at most (1 + t) / (10 + t), t steps after its start (EfficientNet).
    config.weight_average.ema_warm_up = False
    config.weight_average.ema_start_epochs = 0.0  # up to then the average is the newest weights
    config.weight_average.start = 0.75  # swa: the share of the steps after which it begins
    config.weight_average.every_epochs = 1.0  # swa: from one member of the average to the next

    config.loss = ml_collections.ConfigDict()
    # Of training; evaluation always has the cross-entropy: cross_entropy, offset_cross_entropy (for
    # two classes), generalised_cross_entropy, smallest_cross_entropy. All have label smoothing.
    config.loss.name = "cross_entropy"
    config.loss.label_smoothing = 0.0
    # Only the fields of the chosen loss are read.
    config.loss.offset_cross_entropy = ml_collections.ConfigDict()
    config.loss.offset_cross_entropy.offset = 1.0  # of the margin between the two logits
    config.loss.generalised_cross_entropy = ml_collections.ConfigDict()
    config.loss.generalised_cross_entropy.q = 0.7  # 1 - p at 1, towards 0 the cross-entropy
    config.loss.smallest_cross_entropy = ml_collections.ConfigDict()
    config.loss.smallest_cross_entropy.removed = 0.2  # the share with the largest losses

    # Start from the weights of another run where names and shapes agree; fine_tune.json in the
    # workdir says which are new.
    config.fine_tune = ml_collections.ConfigDict()
    # Of that run; empty: start anew. "{workdir}" in it stands for the folder of this run.
    config.fine_tune.workdir = ""
    config.fine_tune.epoch = 0  # the checkpoint to start from; 0: the last

    config.evaluation = ml_collections.ConfigDict()
    # Images in one pass: bounds the memory, not the result. On one core 96 take 7.5 ms for the
    # training set and 480, whose activations leave the core's cache, 10.5 ms.
    config.evaluation.batch_size = 96
    config.evaluation.test_every_epochs = 1  # of the test and validation sets; 0: only at the end
    # Further k, such as 5: the share of examples whose label is among the k largest logits.
    config.evaluation.top_k = ()
    config.evaluation.train_every_epochs = 0  # the training set without augmentation
    # The adversarial sharpness of the training set, as the sound preset measures it below at its
    # first m and rho; 0: never, and otherwise after the last epoch too. One measurement takes the
    # time of three gradients of the set.
    config.evaluation.sharpness_every_epochs = 0

    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.every_epochs = 10  # and the last
    config.checkpoint.keep = 1  # the newest so many

    # What python -m sam_jax.evaluate measures.
    config.instruments = ml_collections.ConfigDict()
    config.instruments.seed = 0  # of examples, noise and directions: the same for every model
    config.instruments.examples = 0  # of the sound preset, out of the training set; 0: all
    config.instruments.batch_size = 96  # of whole-set losses; bounds the memory, not the result
    config.instruments.adversarial = ml_collections.ConfigDict()
    config.instruments.adversarial.m = (32, 144)  # batch of one ascent gradient
    config.instruments.adversarial.rho = (0.05, 0.1, 0.2)
    config.instruments.adversarial.batches = 4  # of the published preset
    config.instruments.average = ml_collections.ConfigDict()
    config.instruments.average.m = (32, 144)  # the sound preset has one number for all m
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
    # Of the sound preset only. Unit: filter norms (1.0 moves a filter by its own length). At 0.25
    # the loss of the study's models rose on both sides in all 990 directions of 33 runs, by 0.07 to
    # 0.35 on average.
    config.instruments.asymmetry_index = ml_collections.ConfigDict()
    config.instruments.asymmetry_index.distance = 0.25
    config.instruments.asymmetry_index.num_directions = 30
    config.instruments.level_set_widths = ml_collections.ConfigDict()
    config.instruments.level_set_widths.rise = 0.1  # the height of the level over the minimum
    # The widths of 33 runs lie between 0.12 and 0.42: none of their 198 directions is censored.
    config.instruments.level_set_widths.max_distance = 1.0
    config.instruments.level_set_widths.num_directions = 6
    config.instruments.level_set_widths.doublings = 5  # of max_distance / 32: finds the crossing
    config.instruments.level_set_widths.bisections = 6  # a width is right within 1 %
    config.instruments.hessian = ml_collections.ConfigDict()
    # 20 give the largest eigenvalue to five digits, and the smallest within its residual, 13 to
    # 33 % of it; 40 within 3 %.
    config.instruments.hessian.steps = 20
    config.instruments.hessian.draws = 10  # of the trace; its standard error is 8 to 18 % of it
    # What follows is measured by name only, as with --measures=spectral_density.
    config.instruments.worst_case_sharpness = ml_collections.ConfigDict()
    config.instruments.worst_case_sharpness.m = (144,)  # batch of one ascent
    # (norm, whether each weight's share of the ball is in proportion to it, rho)
    config.instruments.worst_case_sharpness.balls = (
        ("l2", False, 0.2),
        ("l2", True, 0.2),
        ("linf", False, 0.003),
        ("linf", True, 0.01),
    )
    config.instruments.worst_case_sharpness.batches = 4  # of the published preset
    config.instruments.worst_case_sharpness.steps = 20
    # "adaptive": the steps of APGD, which halve where they make no progress; "halved": steps that
    # halve from quarter to quarter, as in understanding-sam; or "fixed".
    config.instruments.worst_case_sharpness.step_rule = "adaptive"
    # Length of the first steps as a share of rho; 0: 1, and of adaptive steps 2.
    config.instruments.worst_case_sharpness.step_size = 0.0
    config.instruments.worst_case_sharpness.restarts = 0  # more ascents, from random points
    config.instruments.top_eigenvalues = ml_collections.ConfigDict()
    config.instruments.top_eigenvalues.steps = 40  # of Lanczos
    config.instruments.top_eigenvalues.count = 5  # the largest so many
    config.instruments.spectral_density = ml_collections.ConfigDict()
    config.instruments.spectral_density.steps = 40  # of Lanczos, a draw
    config.instruments.spectral_density.draws = 5
    config.instruments.spectral_density.width = 0.0  # of the Gaussians; 0: of the spectrum / 200
    config.instruments.spectral_density.num_points = 256  # of the grid
    config.instruments.loss_line = ml_collections.ConfigDict()
    config.instruments.loss_line.num_directions = 5
    config.instruments.loss_line.limit = 1.0  # distances from -limit to limit, in filter norms
    config.instruments.loss_line.points = 21  # odd, so that the model is one of them
    config.instruments.loss_line.batch_norm = "running"  # or batch, recalibrated
    config.instruments.loss_line.batch_norm_batch_size = 128  # images both of these see at once
    # The plane in which the kept checkpoints differ most; checkpoint.keep has to be 3 or more.
    config.instruments.trajectory_plane = ml_collections.ConfigDict()
    config.instruments.trajectory_plane.points = 15  # along each axis
    config.instruments.trajectory_plane.margin = 0.2  # around the run, as a share of its extent
    # The statistics of the last checkpoint do not fit the first ones.
    config.instruments.trajectory_plane.batch_norm = "recalibrated"  # or running, batch
    config.instruments.trajectory_plane.batch_norm_batch_size = 128

    if variant == "smoke":
        smoke(config)
    elif variant:
        raise ValueError(f'the only variant is "smoke", got {variant!r}.')
    return config.lock()  # a misspelt field is an error, here and on the command line


def method_options(config: ml_collections.ConfigDict) -> None:
    """Add the options of each method besides rho; only the fields of the chosen method are read."""
    options = {
        "usam": {"project": False},  # whether epsilon is kept within a ball of radius rho
        "unified_sam": {"lmbda": 0.5},  # 0: unnormalised, 1: normalised
        "average_sam": {"distribution": "sphere"},  # or gaussian: rho is then per weight
        # whether a step divides by the norm of its gradient; either is kept within rho
        "multi_step_sam": {"steps": 2, "normalised": True},
        # or filter, layer; or all
        "asam": {"rescaling": "element", "rescaled": "not_biases"},
        # rho falls with the learning rate, from method.rho to rho_min
        "gsam": {"alpha": 0.4, "rho_min": 0.0},
        "fisher_sam": {"eta": 1.0},
        # the share of perturbed parameters, and of the examples that are descended on
        "esam": {"beta": 0.6, "gamma": 0.5, "granularity": "parameter"},
        "ss_sam": {"probability": 0.5},  # of the second pass
        "looksam": {"k": 5, "alpha": 0.2},  # full steps every k
        "saf": {"lmbda": 0.3, "tau": 5.0, "epochs_back": 3, "start_epoch": 6},
        "mesa": {"lmbda": 0.8, "tau": 5.0, "decay": 0.9995, "start_epoch": 6},
        "friendly_sam": {"sigma": 1.0, "lmbda": 0.9, "order": "paper"},  # or code
        "vasso": {"theta": 0.4},
        "wsam": {"gamma": 0.47},  # passes through the momentum, unlike decoupled_wsam
        "decoupled_wsam": {"gamma": 0.9},
        "interval_sam": {"k": 10},
        "late_phase_sam": {"tail": 0.3},  # the last share of the steps
        "ae_sam": {"lambda1": -1.0, "lambda2": 1.0, "decay": 0.9},
        "smooth_out": {"radius": 0.01, "copies": 1, "adaptive": False},  # noise of each weight
        "weight_noise": {"relative": 0.0},  # deviation of each factor; rho: of what is added
        "awp": {"gamma": 0.01},
        "amp": {"epsilon": 0.5, "inner_learning_rate": 1.0, "inner_steps": 1},
        "entropy_sgd": {
            "gamma": 0.03,  # pull towards the parameters
            "steps": 8,  # of the inner loop; a divisor of one device's share of the batch
            "step_size": 0.1,
            "noise": 1e-4,
            "alpha": 0.25,
            "split_batch": True,  # each inner step on its own part of the batch
        },
        "extrap_sgd": {"extrapolation": 0.1},  # learning rate of the look ahead
    }
    for name, fields in options.items():
        config.method[name] = ml_collections.ConfigDict(fields)


def smoke(config: ml_collections.ConfigDict) -> None:
    """Shrink a config to seconds: artificial data of the same format, two epochs, few draws."""
    config.epochs = 2
    config.method.saf.start_epoch, config.method.saf.epochs_back = 0, 1
    config.method.mesa.start_epoch = 0
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
    config.instruments.asymmetry_index.num_directions = 2
    config.instruments.level_set_widths.num_directions = 2
    config.instruments.level_set_widths.doublings = 2
    config.instruments.level_set_widths.bisections = 2
    config.instruments.hessian.steps = 3
    config.instruments.hessian.draws = 2
    config.instruments.worst_case_sharpness.m = (32,)
    config.instruments.worst_case_sharpness.batches = 2
    config.instruments.worst_case_sharpness.steps = 3
    config.instruments.top_eigenvalues.steps = 3
    config.instruments.top_eigenvalues.count = 2
    config.instruments.spectral_density.steps = 3
    config.instruments.spectral_density.draws = 2
    config.instruments.spectral_density.num_points = 16
    config.instruments.loss_line.num_directions = 2
    config.instruments.loss_line.points = 3
    config.instruments.trajectory_plane.points = 3
