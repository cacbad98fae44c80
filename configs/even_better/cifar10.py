"""The study on CIFAR-10 with its own settings: MobileNetV2, batches 128 and 5000, 200 epochs.

  python -m sam_jax.data.prepare cifar10
  python -m experiments.even_better --config=configs/even_better/cifar10.py \
      --workdir=runs/even_better_cifar10

Hardware: one GPU or TPU with 40 GB, for the large batch. Images of one seed:
- models and curves, 190 million forward and backward: 17 trainings of 200 epochs for the models
  (SAM counts twice, as does SGD for 400 epochs), and two more for the two curves;
- the eleven planes, 1.7 billion forward;
- the other instruments and the curves' planes, about 0.4 billion forward.
Expected time: 25 hours a seed, most of it for the planes. That is an estimate for one recent GPU,
not a measurement: 10,000 images/s of training and three times as many of evaluation.
config.plane.points=21 makes the planes six times cheaper. Two CPU cores would need months.
Expected numbers: the study's Table 1, which the report shows beside these runs. Its test accuracies
are, for example, 92.16 % (SGD), 93.98 % (128-SAM, rho 0.1) and 92.02 % (5000-SAM, rho 0.1).
"""

import ml_collections

from configs import cifar10
from configs.even_better import digits


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = digits.get_config(variant)
    config.training = cifar10.get_config(variant)
    config.training.on_nonfinite = "continue"  # an arm that diverges is a result
    if variant == "smoke":
        config.models = (("sgd", "small", 0.0, 1), ("sam", "large", 0.1, 1))
        config.curve.pairs = ((("sgd", "small", 0.0, 1), ("sam", "large", 0.1, 1)),)
    else:
        config.small_batch = 128
        config.large_batch = 5000
        config.plane.points = 51
        config.curve.epochs = 200
        config.curve.plane_points = 21
    return config
