"""Task: the loops in which the peers measure, written from their descriptions.

- Asymmetry: for every direction and both sides, set the weights and evaluate the set.
- The surface of Li et al.: for every grid point, set the weights and evaluate the set.
- Lanczos as PyHessian has it: every product runs over the batches, and each batch gives its
  gradient with a graph, whose product with the vector is differentiated again.

A set is a DataLoader of batches of 128 ("loader"), or the same batches cut beforehand ("tensors").
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils import data
from torch_side import about, networks
from worker import Prepared

BATCH = 128
Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


class Measured:
    """A network at its minimum, with directions in the order of its parameters."""

    def __init__(self, arrays: Any, net: nn.Sequential, device: str) -> None:
        """Read the weights that the other side wrote."""
        networks.load_flax(net, arrays)
        self.net = net.to(device).eval()
        self.params = list(net.parameters())
        self.centre = [p.detach().clone() for p in self.params]
        self._arrays, self._names, self._device = arrays, networks.flax_names(net), device

    def direction(self, kind: str, index: int) -> list[torch.Tensor]:
        """Return one of the "directions" or of the "plane"."""
        arrays = (self._arrays[f"{kind}/{name}"][index] for name in self._names)
        return [networks.like_torch(array).to(self._device) for array in arrays]

    def set_weights(self, steps: Iterable[tuple[float, list[torch.Tensor]]]) -> None:
        """Set the weights to the minimum moved along some directions."""
        with torch.no_grad():
            for i, (parameter, centre) in enumerate(zip(self.params, self.centre, strict=True)):
                parameter.copy_(centre + sum(step * along[i] for step, along in steps))

    def loss(self, batches: Batches) -> float:
        """Return the mean loss of the set, batch after batch."""
        total, count = 0.0, 0
        with torch.no_grad():
            for images, labels in batches:
                images, labels = images.to(self._device), labels.to(self._device)
                total += functional.cross_entropy(self.net(images), labels).item() * len(labels)
                count += len(labels)
        return total / count

    def product(self, vector: list[torch.Tensor], batches: Batches) -> list[torch.Tensor]:
        """Return the product of the Hessian of the mean loss with a vector."""
        total, count = [torch.zeros_like(v) for v in vector], 0
        for images, labels in batches:
            images, labels = images.to(self._device), labels.to(self._device)
            loss = functional.cross_entropy(self.net(images), labels)
            grads = torch.autograd.grad(loss, self.params, create_graph=True)
            products = torch.autograd.grad(grads, self.params, grad_outputs=vector)
            total = [t + len(labels) * p for t, p in zip(total, products, strict=True)]
            count += len(labels)
        return [t / count for t in total]


def asymmetry(measured: Measured, batches: Batches, distance: float, directions: int) -> float:
    """Return the mean over directions of the smaller rise over the larger one."""
    measured.set_weights([])
    loss, ratios = measured.loss(batches), []
    for index in range(directions):
        direction = measured.direction("directions", index)
        rises = []
        for side in (distance, -distance):
            measured.set_weights([(side, direction)])
            rises.append(measured.loss(batches) - loss)
        ratios.append(min(rises) / max(rises))
    measured.set_weights([])
    return float(np.mean(ratios))


def surface(measured: Measured, batches: Batches, axis: np.ndarray) -> float:
    """Return the mean log loss over the grid."""
    x, y = (measured.direction("plane", i) for i in (0, 1))
    losses = []
    for b in axis:
        for a in axis:
            measured.set_weights([(float(a), x), (float(b), y)])
            losses.append(measured.loss(batches))
    measured.set_weights([])
    return float(np.mean(np.log(losses)))


def lanczos(measured: Measured, batches: Batches, steps: int) -> float:
    """Return the largest eigenvalue of the tridiagonal matrix after so many products."""
    generator = torch.Generator().manual_seed(0)
    first = [torch.randn(p.shape, generator=generator) for p in measured.params]
    q = unit([v.to(p.device) for v, p in zip(first, measured.params, strict=True)])
    basis, diagonal, off_diagonal = [q], [], []
    for step in range(steps):
        w = measured.product(q, batches)
        diagonal.append(float(dot(w, q)))
        for _ in range(2):  # full orthogonalisation, twice
            for row in basis:
                share = dot(w, row)
                w = [x - share * y for x, y in zip(w, row, strict=True)]
        if step + 1 < steps:
            off_diagonal.append(float(dot(w, w)) ** 0.5)
            q = unit(w)
            basis.append(q)
    matrix = np.diag(diagonal) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
    return float(np.linalg.eigvalsh(matrix)[-1])


def dot(a: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
    """Return the inner product of two vectors."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


def unit(vector: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return a vector of length one."""
    length = dot(vector, vector).sqrt()
    return [x / length for x in vector]


def prepare(case: dict[str, Any]) -> Prepared:
    """Make the loops; calls are named INSTRUMENT/loader, /tensors, and /result for the last one."""
    facts, device = about.start(case["threads"]), about.device()
    arrays = dict(np.load(case["weights"]))
    about.full_precision()
    measured = Measured(arrays, networks.build(case["net"]), device)
    images = (arrays["images"].astype(np.float32) / 255 - arrays["mean"]) / arrays["std"]
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(arrays["labels"]).long()
    loader = data.DataLoader(data.TensorDataset(images, labels), batch_size=BATCH)
    places = list(loader)  # on the device, so that nothing is moved in the loop
    cut = [(i.to(device), t.to(device)) for i, t in places]
    axis, distance = arrays["axis"], float(arrays["distance"])
    results: dict[str, float] = {}
    loops: dict[str, Callable[[Batches], float]] = {
        "asymmetry": lambda b: asymmetry(measured, b, distance, case["directions"]),
        "surface": lambda b: surface(measured, b, axis),
        "lanczos": lambda b: lanczos(measured, b, case["steps"]),
    }

    def call_of(name: str, batches: Batches) -> Callable[[int], None]:
        def call(repeats: int) -> None:
            for _ in range(repeats):
                results[name] = loops[name](batches)
            about.synchronise()

        return call

    def warm_up(repeats: int) -> None:
        for _ in range(repeats):
            measured.loss(loader)
            measured.product(measured.centre, cut)

    calls: dict[str, Callable[[int], Any]] = {"warm_up": warm_up}
    for name in loops:
        calls[f"{name}/loader"], calls[f"{name}/tensors"] = (
            call_of(name, loader),
            call_of(name, cut),
        )
        calls[f"{name}/result"] = lambda repeats, name=name: results[name]
    return Prepared(facts | {"parameters": networks.size(measured.net)}, calls)
