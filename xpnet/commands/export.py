"""`xpnet export`: a saved model as an ONNX file."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

SUMMARY = "a saved model as an ONNX file, for other runtimes"
DESCRIPTION = """\
Write a saved model in ONNX's format, which ONNX Runtime, browsers and phones run.

The file takes what model.predict takes and yields what it yields.  Where ONNX Runtime is installed, both are
compared on random samples before anything is written.
"""
EXAMPLES = """\
examples:
  xpnet export runs/digits-cnn                       runs/digits-cnn/model.onnx
  xpnet export model.safetensors digits.onnx --softmax
"""

HOW = """\
to run it: pip install onnxruntime
  import onnxruntime
  session = onnxruntime.InferenceSession({file!r})
  (y,) = session.run(None, {{"input": x}})  # x: float32, {x}"""
SAMPLES = 3  # that xpnet and ONNX Runtime both predict
TOLERANCE = 1e-4  # between them, as a share of the largest output; rounding makes 1e-7 to 1e-6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from .train import whole_number

    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a .safetensors file, or the folder that holds one")
    add(
        "out",
        type=Path,
        nargs="?",
        metavar="OUT.onnx",
        help="the file to write (default: MODEL's name, with .onnx)",
    )
    add("--overwrite", action="store_true", help="replace OUT.onnx if it exists")
    add(
        "--softmax",
        action="store_true",
        help="end in probabilities where the model ends in logits (by a sigmoid where classes do not exclude "
        "each other)",
    )
    add(
        "--opset",
        type=whole_number("opset"),
        metavar="N",
        help="version of ONNX's operators, lower for older runtimes (default: 21)",
    )


def run(args: argparse.Namespace) -> int:
    """Export as args say; the exit code."""
    from .. import load_model
    from ..interop.onnx.export import export, write
    from . import card
    from .output import check_new

    path = args.model / "model.safetensors" if args.model.is_dir() else args.model
    out = args.out or path.with_suffix(".onnx")
    model = load_model(path, device="cpu")
    check_new(out, args.overwrite)
    known = card.read(path)
    print(f"model: {model.name}" + (f", trained on {known.data}" if known else ""))
    if args.softmax:
        end_in_probabilities(model)
    proto = export(model, opset=args.opset, metadata=None if known is None else card.texts(known))
    low, high = (-1.0, 1.0) if known is None else (known.low, known.high)
    print(compare(model, proto, low, high))
    write(proto, out)
    print(f"wrote {out}")
    x = f"({', '.join(['N', *map(str, model.input_shape)])})"
    print(HOW.format(file=str(out), x=x if known is None else f"{x}, from {low:g} to {high:g}"))
    return 0


def end_in_probabilities(model) -> None:
    """Append what makes probabilities of a classifier's logits."""
    from ..layers import Activation
    from .predict import is_classifier, link

    if not is_classifier(model):
        raise ValueError(f"--softmax is for classifiers. Received: a model trained with {model.loss!r}")
    function = link(model)
    if function is None:
        print("note: the model yields probabilities already; nothing is added")
        return
    print(f"added: {function.name}")
    model.add(Activation(function))


def compare(model, proto, low: float, high: float) -> str:
    """How far ONNX Runtime's outputs are from the model's, for random samples between low and high.

    ArithmeticError where they are not the same but for rounding.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return "not compared with ONNX Runtime, which is not installed: pip install onnxruntime"
    import numpy as np
    import onnxruntime

    x = np.random.default_rng(0).uniform(low, high, (SAMPLES, *model.input_shape)).astype(np.float32)
    name = f"ONNX Runtime {onnxruntime.__version__}"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it has to say comes as an exception
    try:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # of classes of its own: the file may be for a newer one
        return f"not compared: {name} does not load it, others may ({' '.join(str(error).split())})"
    (received,) = session.run(None, {"input": x})
    expected = model.predict(x)
    if not np.isfinite(expected).all():
        return "not compared with ONNX Runtime: the model's outputs are not finite"
    difference, largest = np.abs(received - expected).max(), np.abs(expected).max()
    if not difference <= TOLERANCE * max(largest, 1):
        raise ArithmeticError(
            f"{name} computes something else. Received: outputs {difference:.2g} apart. Expected: at "
            f"most {TOLERANCE:g} of {largest:.2g}; nothing was written"
        )
    return f"compared: {name} differs by at most {difference:.1e}, outputs reach {largest:.3g}"
