"""Tell differences from chance: pure functions over numbers, without a database; SciPy does the mathematics.

SciPy is imported where it computes, so that importing this room costs nothing.
"""

from orchestrator.statistics.best import best_set
from orchestrator.statistics.comparison import (
    ENOUGH_SEEDS,
    IMAGES,
    Candidate,
    Comparison,
    Outcomes,
    compare,
    contrast,
)
from orchestrator.statistics.moments import (
    LEVEL,
    error_rate_noise,
    half_width,
    mean_of,
    paired_test,
    spread_of,
    student_p,
    student_quantile,
)

__all__ = [
    "ENOUGH_SEEDS",
    "IMAGES",
    "LEVEL",
    "Candidate",
    "Comparison",
    "Outcomes",
    "best_set",
    "compare",
    "contrast",
    "error_rate_noise",
    "half_width",
    "mean_of",
    "paired_test",
    "spread_of",
    "student_p",
    "student_quantile",
]
