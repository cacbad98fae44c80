"""Package metadata of sam_jax; tool settings live in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (ROOT / "sam_jax" / "version.py").read_text(), re.MULTILINE
).group(1)

CORE = ["jax>=0.8", "numpy", "optax>=0.2.5"]
LAB = [
    "absl-py",
    "array_record",
    "filelock",  # JAX bounds its cache of compiled programs with it
    "flax>=0.12",
    "grain",  # streams sets that do not fit on a device
    "importlib_resources",  # tensorflow-datasets 4.9.10 imports it without declaring it
    "jinja2",
    "markupsafe",
    "matplotlib",
    "ml-collections",
    "orbax-checkpoint",
    "pandas",
    "pillow",  # decodes the images of prepared sets
    "scikit-learn",
    "scipy",
    "tensorstore",  # orbax keeps arrays in it
    "submitit",  # runs of a study as jobs
    "tensorboardX",
    "tensorflow-datasets",
    "tqdm",
]
TFDS = [*LAB, "tensorflow-cpu"]  # prepares sets; reading them needs no TensorFlow
NOTEBOOKS = [*LAB, "ipykernel", "nbclient", "nbformat"]
TEST = [
    "beartype",
    "equinox",
    "hypothesis",
    "import-linter",
    "jaxtyping",
    "keras",
    "matfree",
    "pre-commit",
    "pyright[nodejs]==1.1.414",  # other versions find other faults
    "pytest",
    "pytest-xdist",
    "ruff",
    "statsmodels",
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
    package_data={"sam_jax": ["py.typed"]},
    install_requires=CORE,
    extras_require={
        "lab": LAB,
        "tfds": TFDS,
        "notebooks": NOTEBOOKS,
        "test": [*TFDS, *NOTEBOOKS, *TEST],
    },
    entry_points={
        "console_scripts": [
            f"sam-jax-{name} = sam_jax.commands:{name}"
            for name in ("train", "evaluate", "prepare", "study")
        ]
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
