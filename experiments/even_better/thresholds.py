"""The thresholds of the study's verdicts and of what counts as a basin or as low."""

RISE = 0.5  # of the training loss above a model's: the points below that level are its basin
LOW = 1.1  # times the training loss of the higher of a curve's ends: below it a curve is low
MOST = 0.5  # of a trained curve
BARRIER = 0.1  # of the ends' mean test loss: a rise above it makes a barrier
MODERATE = 0.3  # from here on a correlation is of medium size, in the words of Cohen (1988)
POOR = 0.5  # below it a correlation is not large, in the same words
SHARE = 0.05  # differences of the test loss below this share of it count as none
APPROXIMATELY = 0.1  # the same for losses that are said to be approximately equal
