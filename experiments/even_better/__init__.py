"""Ten minima compared: sharpness, asymmetry and test loss, after "Towards an Even Better
Understanding of Sharpness-Aware Minimisation" (Boca, Cross, Holm and Korkmaz, 2023).
"""
