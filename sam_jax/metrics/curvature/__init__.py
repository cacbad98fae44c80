"""The Hessian at a minimum, by its products with vectors."""
