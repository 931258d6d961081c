"""Pictures of data, training and what a network computes, by matplotlib: pip install 'xpnet[plot]'.

Every function draws into `ax` (or `fig`) where one is given and into a new figure otherwise, and returns the
Axes; `save(axes, "picture.png")` writes them.  No display is needed and pyplot is never touched, so nothing
stays open.  matplotlib is imported when something is drawn.
"""

from .attribution import grad_cam, saliency
from .curves import plot_history
from .descent import animate_optimizer_paths, optimizer_path, plot_optimizer_paths
from .evolution import animate_kernels, plot_kernel_evolution
from .explain import explain
from .grids import plot_feature_maps, plot_images, plot_kernels
from .heatmaps import plot_grad_cam, plot_saliency
from .landscape import LossSurface, loss_surface, plot_loss_surface
from .matrix import plot_confusion_matrix
from .mistakes import plot_mistakes
from .rates import plot_rates
from .regions import animate_decision_regions, decision_regions, plot_decision_regions, plot_points
from .report import report
from .style import figure, save, style
from .walk import plot_layers

__all__ = [
    "LossSurface",
    "animate_decision_regions",
    "animate_kernels",
    "animate_optimizer_paths",
    "decision_regions",
    "explain",
    "figure",
    "grad_cam",
    "loss_surface",
    "optimizer_path",
    "plot_confusion_matrix",
    "plot_decision_regions",
    "plot_feature_maps",
    "plot_grad_cam",
    "plot_history",
    "plot_images",
    "plot_kernel_evolution",
    "plot_kernels",
    "plot_layers",
    "plot_loss_surface",
    "plot_mistakes",
    "plot_optimizer_paths",
    "plot_points",
    "plot_rates",
    "plot_saliency",
    "report",
    "saliency",
    "save",
    "style",
]
