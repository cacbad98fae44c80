"""Task: the evaluation of a set, batch by batch, from uint8 images."""

from typing import Any

import torch
from nets import NETS
from torch.nn import functional
from torch_side import about, networks
from torch_side.training_step import FORMATS
from worker import Prepared


def prepare(case: dict[str, Any]) -> Prepared:
    """Make the evaluation in both memory formats; calls are named evaluation/FORMAT."""
    facts, device = about.start(case["threads"]), about.device()
    about.full_precision()
    height, width, channels = NETS[case["net"]].image
    shape = (case["examples"], channels, height, width)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    labels = torch.randint(0, 10, (case["examples"],), device=device)
    size, calls = 0, {}
    for name, layout in FORMATS.items():
        net = networks.build(case["net"]).to(device, memory_format=layout).eval()
        size = networks.size(net)

        def call(repeats: int, net: Any = net, layout: Any = layout) -> None:
            for _ in range(repeats):
                evaluate(net, images, labels, case["batch"], layout)

        calls[f"evaluation/{name}"] = call
    return Prepared(facts | {"parameters": size}, calls)


def evaluate(
    net: Any, images: torch.Tensor, labels: torch.Tensor, batch: int, layout: Any
) -> tuple[float, float]:
    """Return the mean loss and the accuracy of a set."""
    loss = correct = torch.zeros((), device=images.device)
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            some = images[start : start + batch].contiguous(memory_format=layout)
            logits = net((some.float() / 255 - 0.5) / 0.25)
            target = labels[start : start + batch]
            loss = loss + functional.cross_entropy(logits, target, reduction="sum")
            correct = correct + (logits.argmax(dim=1) == target).sum()
    return float(loss) / len(images), float(correct) / len(images)
