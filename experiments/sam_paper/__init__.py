"""The tables and ablations of the first SAM paper, from runs.

Foret, Kleiner, Mobahi and Neyshabur, Sharpness-Aware Minimization for Efficiently Improving
Generalization, 2021, arXiv:2010.01412.
"""
