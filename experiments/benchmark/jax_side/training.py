"""Task: a short training by the command's loop, on Fashion-MNIST where it is prepared."""

import pathlib
import shutil
import time
from typing import Any

import ml_collections

from configs import digits, fashion_mnist
from experiments.benchmark.jax_side import networks
from experiments.benchmark.worker import Prepared
from sam_jax.training import build
from sam_jax.training.train_and_evaluate import train_and_evaluate


def prepare(case: dict[str, Any]) -> Prepared:
    """Choose the set, and make the call `train`.

    Args:
      case: for either set by its name "epochs", and "examples" of the training set, 0 for all;
        "overrides" of the config, "data_dir", and "folder".
    """
    config, example_count = _config(case)
    config.update_from_flattened_dict(case["overrides"])
    config.epochs = case["epochs"][config.data.name]
    folder = pathlib.Path(case["folder"])
    images = example_count // config.batch_size * config.batch_size

    def train(repeats: int) -> dict[str, Any]:
        del repeats
        shutil.rmtree(folder, ignore_errors=True)
        start = time.perf_counter()
        record = train_and_evaluate(config, folder)
        return {
            "title": f"{config.model.name} on {config.data.name}",
            "test_accuracy": record["test_accuracy"],
            "test_loss": record["test_loss"],
            "examples": images,
            "epochs": config.epochs,
            "seconds": time.perf_counter() - start,
        }

    return Prepared(networks.about(), {"train": train})


def _config(case: dict[str, Any]) -> tuple[ml_collections.ConfigDict, int]:
    """Return MobileNetV2 with SAM on Fashion-MNIST, or on the digits where that is not there."""
    for make, name in ((fashion_mnist.get_config, "fashion_mnist"), (digits.get_config, "digits")):
        config = make()
        config.data.name, config.data.data_dir = name, case["data_dir"]
        config.data.train_examples = case["examples"][name]
        config.model.name = "mobilenet_v2"
        config.optimiser.learning_rate = 0.05
        try:
            _, data = build.load_data(config)
        except (FileNotFoundError, ValueError):
            if name == "digits":
                raise
            continue
        return config, len(data.train_labels)
    raise FileNotFoundError("neither Fashion-MNIST nor the digits can be read")
