"""The work of the side that runs JAX: a task a file, with `prepare(case) -> Prepared`."""
