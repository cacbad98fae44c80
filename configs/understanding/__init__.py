"""The studies of "Towards Understanding Sharpness-Aware Minimization" that train deep nets."""
