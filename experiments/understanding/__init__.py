"""The experiments of "Towards Understanding Sharpness-Aware Minimization".

Studies that train deep nets, on the study layer:

- m_sharpness: ERM, random perturbations and SAM for several m and radii.
- label_noise: curves with and without wrong labels.
- fine_tuning: from ERM to SAM and back.

Small experiments without deep nets, with the command of command.py:

- diagonal_nets: GD, n-SAM and 1-SAM on diagonal linear networks, beside the recorded numbers.
- relu_nets: GD and SAM on nets with one hidden layer in one dimension.
- convergence: what the theorems say of step sizes, radii and interpolation, as tests.
"""
