"""Package metadata of sam_jax; tool settings live in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (ROOT / "sam_jax" / "version.py").read_text(), re.MULTILINE
).group(1)

CORE = ["jax>=0.8", "numpy>=2.0", "optax>=0.2.5"]
LAB = [
    "absl-py>=2.1",
    "array_record>=0.8.1",
    "filelock>=3.16",  # JAX bounds its cache of compiled programs with it
    "flax>=0.12",
    "grain>=0.2.12",  # streams sets that do not fit on a device
    "importlib_resources>=6.4",  # tensorflow-datasets 4.9.10 imports it without declaring it
    "jinja2>=3.1.4",
    "markupsafe>=2.1.5",
    "matplotlib>=3.9",
    "ml-collections>=1.0",
    "orbax-checkpoint>=0.11.28",
    "pandas>=2.2.2",
    "pillow>=10.4",  # decodes the images of prepared sets
    "plotly>=6.0",  # brings plotly.js, with which pages turn surfaces
    "scikit-learn>=1.5",
    "scipy>=1.15",
    "submitit>=1.5.2",  # runs of a study as jobs
    "tensorboardX>=2.6.2.2",
    "tensorflow-datasets>=4.9.9",
    "tensorstore>=0.1.71",  # orbax keeps arrays in it
    "tqdm>=4.66",
]
# Prepares sets; reading them needs no TensorFlow. 2.19 holds protobuf below 6, which the files of
# tensorflow-metadata refuse.
TFDS = [*LAB, "tensorflow-cpu>=2.20"]
SAFETENSORS = [*LAB, "safetensors>=0.5"]  # measures checkpoints in this format
WANDB = [*LAB, "wandb>=0.20"]
MLFLOW = [*LAB, "mlflow-skinny>=3.1"]
NOTEBOOKS = [*LAB, "ipykernel>=6.29", "nbclient>=0.10", "nbformat>=5.10"]
TEST = [
    "beartype",
    "build",
    "equinox",
    "hypothesis",
    "import-linter",
    "jaxtyping",
    "keras",
    "matfree",
    "pdoc",
    "pre-commit",
    "pyright[nodejs]==1.1.414",  # other versions find other faults
    "pytest",
    "pytest-xdist",
    "ruff",
    "setuptools>=64",
    "statsmodels",
    "wheel",
]

setup(
    name="sam_jax",
    version=VERSION,
    description="Sharpness-aware minimisation in JAX: optimisers, instruments and experiments",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["sam_jax", "sam_jax.*"]),
    python_requires=">=3.11",
    package_data={"sam_jax": ["py.typed", "*/templates/*"]},
    install_requires=CORE,
    extras_require={
        "lab": LAB,
        "tfds": TFDS,
        "notebooks": NOTEBOOKS,
        "safetensors": SAFETENSORS,
        "wandb": WANDB,
        "mlflow": MLFLOW,
        "test": [*TFDS, *NOTEBOOKS, *SAFETENSORS, *WANDB, *MLFLOW, *TEST],
    },
    entry_points={
        "console_scripts": [
            f"sam-jax-{name} = sam_jax.commands:{name}"
            for name in ("train", "evaluate", "prepare", "dashboard", "study")
        ]
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
