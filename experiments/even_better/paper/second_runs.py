"""The study's trainings beyond the models of its tables, from its released files."""

# The study's SGD for 400 epochs, from its released files (run rose-fog-156); accuracy in per cent.
LONGER_SGD = {"test_loss": 0.2492, "test_accuracy": 91.53}
# Second runs of two models, from its released files (stoic-jazz-100, silver-haze-107). Only these
# numbers are there of them.
SECOND_RUNS = {
    ("sgd", "small", 0.0): {
        "test_loss": 0.2233, "train_loss": 0.1412, "asymmetry_factor": 0.1181,
    },
    ("sam", "small", 0.1): {
        "test_loss": 0.1724, "train_loss": 0.1082, "asymmetry_factor": 0.0274,
    },
}  # fmt: skip
