"""The SAM variants compared: the cost and the benefit of each, from the same initial weights.

Beside these runs stand Tables 3 and 4 of "Towards an Even Better Understanding of Sharpness-Aware
Minimisation" (Boca, Cross, Holm and Korkmaz, 2023).
"""
