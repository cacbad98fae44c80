"""What the devices of a compiled program send each other, read from its text."""

import math
import re
from typing import Any

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"f64": 8, "f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "pred": 1, "u8": 1}


def collectives(text: str) -> dict[str, Any]:
    """Return the bytes that each kind of collective in a compiled program gives, and their sum.

    >>> text = "  %a = (f32[4,2]{1,0}, f32[]) all-reduce(%x, %y), channel_id=1"
    >>> collectives(text)
    {'collectives': {'all-reduce': 36}, 'collective_bytes': 36}
    """
    found: dict[str, int] = {}
    for line in text.splitlines():
        for name in COLLECTIVES:
            match = re.search(rf"= (.+?) {name}(?:-start)?\(", line)
            if match:
                shapes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
                count = sum(
                    BYTES.get(kind, 4) * math.prod(int(n) for n in sizes.split(",") if n)
                    for kind, sizes in shapes
                )
                found[name] = found.get(name, 0) + count
    return {"collectives": found, "collective_bytes": sum(found.values())}
