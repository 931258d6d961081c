"""Networks as scikit-learn estimators: for pipelines, grid searches and scripts written for MLPClassifier.

    from xpnet.sklearn import NetClassifier

    net = NetClassifier(hidden=(128, 64), dropout=0.3, class_weight="balanced", random_state=0)
    net.fit(X, y).score(X_test, y_test)

Architectures are in `architecture.py`, words for optimizers in `solvers.py`, when to stop in `progress.py`.
"""

from .classifier import NetClassifier
from .regressor import NetRegressor

__all__ = ["NetClassifier", "NetRegressor"]
