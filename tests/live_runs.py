"""Folders of runs as trainings leave them, made of numbers that a test chooses."""

import json
import math


def record(epoch, offset=0.0, **more):
    """Return the record of an epoch, with all that a training writes."""
    loss = 2.0 * math.exp(-0.05 * epoch) + offset
    return {
        "epoch": epoch,
        "step": 10 * epoch,
        "batch_loss": loss,
        "batch_accuracy": 1 - loss / 3,
        "nonfinite_steps": 0,
        "skipped_steps": 0,
        "learning_rate": 0.1 * (1 + math.cos(math.pi * epoch / 200)),
        "rho": 0.05,
        "gradient_norm": 0.3 + loss,
        "perturbation_norm": 0.05,
        "test_loss": loss + 0.1 if epoch % 2 == 0 else math.nan,
        "test_accuracy": 0.95 - loss / 3 if epoch % 2 == 0 else math.nan,
        **({"sharpness": 0.2 + loss / 9, "sharpness_stderr": 0.05} if epoch % 5 == 0 else {}),
        **more,
    }


def speed(epoch):
    """Return the line of speed.jsonl of an epoch that took 30 seconds."""
    return {"epoch": epoch, "seconds": 30.0, "images_per_second": 1500.0, "time": 30.0 * epoch}


def make_run(folder, epochs=10, done=10, seed=0, offset=0.0, old=False):
    """Write a run that has finished `done` of its epochs; an old one lacks the later fields."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"epochs": epochs, "seed": seed, "method": {"name": "sam"}}
    (folder / "config.json").write_text(json.dumps(config))
    records = [record(epoch, offset) for epoch in range(1, done + 1)]
    if old:
        kept = ("epoch", "step", "batch_loss", "batch_accuracy", "test_loss", "test_accuracy")
        records = [{name: one[name] for name in kept} for one in records]
    else:
        append(folder / "speed.jsonl", *map(speed, range(1, done + 1)))
    append(folder / "metrics.jsonl", *records)
    return folder


def append(path, *records):
    """Append records as JSON lines."""
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
