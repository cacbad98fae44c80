"""Statistics of few models and few seeds: host-side functions of NumPy arrays.

Do not jit them: they run once over the results of a study and return Python numbers.
"""

from sam_jax import extras

extras.needs(__name__, "lab", "scipy")

from sam_jax.statistics.correlation import METHODS as METHODS
from sam_jax.statistics.correlation import Correlation as Correlation
from sam_jax.statistics.correlation import correlation as correlation
from sam_jax.statistics.granulated import GranulatedKendall as GranulatedKendall
from sam_jax.statistics.granulated import granulated_kendall as granulated_kendall
from sam_jax.statistics.means import MeanAndStderr as MeanAndStderr
from sam_jax.statistics.means import MeanDifference as MeanDifference
from sam_jax.statistics.means import mean_and_stderr as mean_and_stderr
from sam_jax.statistics.means import mean_difference as mean_difference
from sam_jax.statistics.multiplicity import adjust_p_values as adjust_p_values
from sam_jax.statistics.partial import PartialCorrelation as PartialCorrelation
from sam_jax.statistics.partial import partial_correlation as partial_correlation
from sam_jax.statistics.power import seeds_to_separate as seeds_to_separate
from sam_jax.statistics.samples import Interval as Interval
from sam_jax.statistics.verdicts import verdict as verdict
