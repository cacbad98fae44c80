"""What a file of Weights & Biases holds, by its format: records in blocks, as LevelDB logs them."""

import json
import struct

from wandb.proto import wandb_internal_pb2

BLOCK = 32768
FULL, FIRST, _, LAST = 1, 2, 3, 4


def records_of(path):
    """Return the records of a .wandb file."""
    data, position, found, parts = path.read_bytes(), 7, [], b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:  # no header fits: zeros
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        part = data[position + 7 : position + 7 + size]
        position += 7 + size
        parts = part if kind in (FULL, FIRST) else parts + part
        if kind in (FULL, LAST):
            found.append(wandb_internal_pb2.Record.FromString(parts))
    return found


def values_of(items):
    """Return the values of items by their keys."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def history_of(path):
    """Return step -> numbers, without those that Weights & Biases adds."""
    rows = [(r.history.step.num, values_of(r.history.item)) for r in records_of(path)]
    return {
        step: {n: x for n, x in numbers.items() if not n.startswith("_")}
        for step, numbers in rows
        if numbers
    }
