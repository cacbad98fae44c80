"""The software and the machine of a study."""

import platform

import jax

import sam_jax


def software() -> dict[str, str]:
    """Return the versions and the device that this process computes with."""
    return {
        "sam_jax": sam_jax.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
    }
