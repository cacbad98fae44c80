"""The study "Towards an Even Better Understanding of Sharpness-Aware Minimisation"."""
