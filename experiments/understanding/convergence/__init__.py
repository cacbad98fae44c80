"""Where stochastic m-SAM converges: step sizes, radii and interpolation, on small problems."""
