"""Image classification sets by their names: preparation, streaming, augmentation on the device."""

from sam_jax import extras

extras.needs(
    __name__, "lab", "array_record", "grain", "PIL", "scipy", "sklearn", "tensorflow_datasets"
)

from sam_jax.data.augmentation import Augmentation as Augmentation
from sam_jax.data.augmentation import augment as augment
from sam_jax.data.augmentation import augmentation_of as augmentation_of
from sam_jax.data.label_noise import label_noise as label_noise
from sam_jax.data.label_noise import with_label_noise as with_label_noise
from sam_jax.data.loading import load as load
from sam_jax.data.loading import load_with_validation as load_with_validation
from sam_jax.data.sources import SOURCES as SOURCES
from sam_jax.data.sources import Source as Source
from sam_jax.data.sources import normalise as normalise
from sam_jax.data.splits import Dataset as Dataset
from sam_jax.data.splits import Split as Split
from sam_jax.data.streaming import STREAMING as STREAMING
from sam_jax.data.streaming import StreamedColumn as StreamedColumn
from sam_jax.data.streaming import StreamedSplit as StreamedSplit
from sam_jax.data.streaming import mean_over_blocks as mean_over_blocks
from sam_jax.data.streaming import training_blocks as training_blocks
