"""Task: SGD and SAM written by hand, in every memory format and mode that is worth trying.

SAM is two forward and backward passes with epsilon = rho g / ||g||. Batch norm normalises by the
batch in both; its running statistics come from the clean pass alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from nets import NETS
from torch import nn
from torch.nn import functional
from torch_side import about, networks
from worker import Prepared

RHO, LEARNING_RATE, MOMENTUM = 0.05, 0.01, 0.9
# The modes of a device and a precision: whether it compiles, and the memory format.
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
MODES = {
    ("cpu", "float32"): ("eager contiguous", "eager channels_last"),
    ("cpu", "tf32"): ("eager channels_last",),
    ("cpu", "bfloat16"): ("eager channels_last", "compile channels_last"),
    ("cuda", "float32"): ("eager channels_last",),
    ("cuda", "tf32"): ("eager channels_last", "eager contiguous"),
    ("cuda", "bfloat16"): ("eager channels_last", "eager contiguous", "compile channels_last"),
}


class Trainer:
    """A network, its optimiser and one batch."""

    def __init__(
        self,
        net: nn.Module,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        autocast: bool = False,
        compiled: bool = False,
    ) -> None:
        """Take a network in training mode; it is changed by every step."""
        self._net, self._images, self._labels = net, images, labels
        self._run = torch.compile(net) if compiled else net
        self._autocast = autocast
        self._norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
        self._params = list(net.parameters())
        self._optimiser = torch.optim.SGD(
            self._params, lr=LEARNING_RATE, momentum=MOMENTUM, foreach=True
        )

    def _gradient(self) -> None:
        self._optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self._images.device.type, torch.bfloat16, enabled=self._autocast):
            loss = functional.cross_entropy(self._run(self._images).float(), self._labels)
        loss.backward()

    def sgd(self) -> None:
        """Take a step of SGD."""
        self._gradient()
        self._optimiser.step()

    def sam(self) -> None:
        """Take a step of SAM."""
        self._gradient()
        with torch.no_grad():
            grads = [parameter.grad for parameter in self._params]
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
            epsilon = torch._foreach_mul(grads, RHO / (norm + 1e-12))
            torch._foreach_add_(self._params, epsilon)
        self._keep_statistics(True)
        self._gradient()
        self._keep_statistics(False)
        with torch.no_grad():
            torch._foreach_sub_(self._params, epsilon)
        self._optimiser.step()

    def _keep_statistics(self, keep: bool) -> None:
        for norm in self._norms:  # the batch's statistics are used, and not taken over
            norm.track_running_stats = not keep


def prepare(case: dict[str, Any]) -> Prepared:
    """Make a trainer a mode; calls are named METHOD/MODE."""
    facts, device = about.start(case["threads"]), about.device()
    size, calls = 0, {}
    for mode in MODES[device, case["precision"]]:
        kind, layout = mode.split()
        layout = FORMATS[layout]
        net = networks.build(case["net"]).to(device, memory_format=layout).train()
        size = networks.size(net)
        height, width, channels = NETS[case["net"]].image
        images = torch.randn(case["batch"], channels, height, width, device=device)
        labels = torch.randint(0, 10, (case["batch"],), device=device)
        trainer = Trainer(
            net,
            images.contiguous(memory_format=layout),
            labels,
            autocast=case["precision"] == "bfloat16",
            compiled=kind == "compile",
        )
        for method in case["methods"]:
            calls[f"{method}/{mode}"] = _repeated(getattr(trainer, method))
    return Prepared(facts | {"parameters": size}, calls)


def _repeated(step: Callable[[], None]) -> Callable[[int], None]:
    def call(repeats: int) -> None:
        for _ in range(repeats):
            step()
        about.synchronise()

    return call
