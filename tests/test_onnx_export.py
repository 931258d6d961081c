"""ONNX: what is written computes in ONNX Runtime what the model computes here."""

import subprocess
import sys

import numpy as np
import pytest
import strict_xp
from cases import CASES, assert_close, randomise

import xpnet
from xpnet import Sequential, activations, networks
from xpnet import layers as L

onnx = pytest.importorskip("onnx", reason="pip install 'xpnet[onnx]'")
ort = pytest.importorskip("onnxruntime")

from xpnet.interop.onnx import export, register_exporter  # noqa: E402
from xpnet.interop.onnx import export as exporting  # noqa: E402
from xpnet.interop.onnx.writer import EXPORTERS  # noqa: E402

RTOL = 1e-5  # of the largest output, at least of 1
OPSETS = (17, 18, 20, 21, 22)  # each the first with another form of some operator; default 21
