"""Under which conditions the instruments are applied to a trained model.

The instruments know only a loss function. What that function does with BatchNorm and images,
and which examples it sees, is data: the evaluation turns a preset into loss functions.
"""

from typing import Literal, NamedTuple


class Conditions(NamedTuple):
    """The model and the training set as one instrument sees them, without augmentation."""

    # "running": the running statistics, so the loss is a function of the weights alone.
    # "batch": the statistics of each evaluated batch, as during training.
    batch_norm: Literal["running", "batch"]
    # Whether images are normalised as in training, or only scaled to [0, 1].
    normalise_images: bool
    # "first": of the training set, in the order of its source. TensorFlow Datasets keeps another
    # one than the files of CIFAR-10, which the study read. "random": without replacement.
    # "all": the whole training set.
    examples: Literal["first", "random", "all"]
    # True: for every batch size m the same examples, cut into batches of m (less than one m is
    # left out; the records say how many examples were used).
    # False: for every m the same number of batches, so a larger m also sees more examples.
    same_examples: bool


class Preset(NamedTuple):
    """The conditions of every instrument, and the laws of its random perturbations."""

    name: str  # as in `PRESETS`
    adversarial: Conditions  # of adversarial_sharpness
    average: Conditions  # of average_sharpness
    asymmetry: Conditions  # of asymmetry_factor
    curve: Conditions  # of loss_curve
    average_distribution: Literal["sphere", "gaussian"]  # of the perturbations
    asymmetry_distribution: Literal["uniform", "gaussian"]  # of the directions


_FIRST_IMAGES_IN_TRAINING_MODE = Conditions(
    batch_norm="batch", normalise_images=False, examples="first", same_examples=False
)
_RANDOM_SAMPLE = Conditions(
    batch_norm="running", normalise_images=True, examples="random", same_examples=True
)
_WHOLE_TRAINING_SET = Conditions(
    batch_norm="running", normalise_images=True, examples="all", same_examples=True
)

PUBLISHED = Preset(
    name="published",
    adversarial=_FIRST_IMAGES_IN_TRAINING_MODE,
    average=_FIRST_IMAGES_IN_TRAINING_MODE,
    asymmetry=_WHOLE_TRAINING_SET,
    curve=_WHOLE_TRAINING_SET,
    average_distribution="gaussian",
    asymmetry_distribution="uniform",
)
"""The conditions in the code of the study of asymmetry: Boca, Cross, Holm and Korkmaz, Towards an
Even Better Understanding of Sharpness-Aware Minimisation, 2023, https://github.com/Kausta/R252_SAM.

Its sharpness and its asymmetry were taken under different conditions and cannot be compared
with each other: for the sharpness the model stayed in training mode and the images were not
normalised, although the model was trained on normalised ones.

* Tables 2 and 5, adversarial loss and sharpness: the first 4 m images in 4 batches, m = 128 or
  5000, rho = 0.05, 0.1, 0.2, one ascent step. In the printed Table 2 the columns
  (m = 5000, rho = 0.05) and (m = 5000, rho = 0.1) are exchanged.
* Tables 6 and 7, average sharpness and loss: the first m images in one batch, 15 draws, noise
  of standard deviation 0.5 or 1 on every weight. The last column of the printed Table 6
  (m = 5000, standard deviation 1) repeats the last column of Table 7 and is not the sharpness.
* Table 1 and Figure 5, asymmetry factor and training loss: all 50 000 training images,
  distance 5, 30 directions. Figures 6 and 11: the curves, one direction, 21 distances.
"""

SOUND = Preset(
    name="sound",
    adversarial=_RANDOM_SAMPLE,
    average=_RANDOM_SAMPLE,
    asymmetry=_WHOLE_TRAINING_SET,
    curve=_WHOLE_TRAINING_SET,
    average_distribution="sphere",
    asymmetry_distribution="gaussian",
)
"""One function of the weights for all instruments: the loss that the model has in use.

Sharpness for all m is taken on the same random examples, so that m changes only the batch of
the ascent gradient. Perturbations have a fixed norm and directions are isotropic.
It reproduces no published number.
"""

PRESETS = {preset.name: preset for preset in (PUBLISHED, SOUND)}
