"""Pictures of data, training and what a network computes, by matplotlib: pip install 'xpnet[plot]'.

Every function draws into `ax` (or `fig`) where one is given and into a new figure otherwise, and returns the
Axes; `save(axes, "picture.png")` writes them.  No display is needed and pyplot is never touched, so nothing
stays open.  matplotlib is imported when something is drawn.
"""

from .curves import plot_history
from .grids import plot_feature_maps, plot_images, plot_kernels
from .matrix import plot_confusion_matrix
from .rates import plot_rates
from .regions import animate_decision_regions, decision_regions, plot_decision_regions, plot_points
from .style import figure, save, style

__all__ = [
    "animate_decision_regions",
    "decision_regions",
    "figure",
    "plot_confusion_matrix",
    "plot_decision_regions",
    "plot_feature_maps",
    "plot_history",
    "plot_images",
    "plot_kernels",
    "plot_points",
    "plot_rates",
    "save",
    "style",
]
