"""Small experiments of "Towards Understanding Sharpness-Aware Minimization", without deep nets.

- diagonal_nets: GD, n-SAM and 1-SAM on diagonal linear networks, beside the recorded numbers.
- relu_nets: GD and SAM on nets with one hidden layer in one dimension.
- convergence: what the theorems say of step sizes, radii and interpolation, as tests.

command.py is what their commands share, evidence.py their numbers as evidence for claims.
"""
