"""Image classification sets: sources, preparation and augmentation on the device."""

from sam_jax.data.augmentation import Augmentation as Augmentation
from sam_jax.data.augmentation import augment as augment
from sam_jax.data.augmentation import augmentation_of as augmentation_of
from sam_jax.data.loading import Dataset as Dataset
from sam_jax.data.loading import Split as Split
from sam_jax.data.loading import load as load
from sam_jax.data.sources import SOURCES as SOURCES
from sam_jax.data.sources import Source as Source
from sam_jax.data.sources import normalise as normalise
