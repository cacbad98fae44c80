"""The instruments of `sam_jax.evaluate`, one a file; `sam_jax.measuring.registry` names them."""
