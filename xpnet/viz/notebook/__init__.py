"""What a notebook shows of a model, a history and a learning-rate test: HTML and SVG made by hand, so that
nothing but the standard library is needed.

`card(...)` is what `_repr_html_` hands over: a part with the style it needs.  The parts themselves,
`network(model)`, `training(history)` and `rates(curve)`, stand in the report, too.
"""

from .curves import rates, training
from .markup import card, css, text
from .network import network

__all__ = ["card", "css", "network", "rates", "text", "training"]
