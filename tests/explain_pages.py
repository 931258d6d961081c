"""Numbers of explain pages, computed by their engine: in node, or in a browser."""

import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from xpnet.viz.explain.assemble import bundle, page_data
from xpnet.viz.explain.payload import Sample, Subject, collect

ENGINE = files("xpnet.viz") / "explain" / "engine"
HERE = Path(__file__).parent
ROOM = 2_500_000


def subject(model, samples=(), **more):
    """A Subject with the names that nobody looks at."""
    return Subject(model, list(samples), "title", [str(k) for k in range(model.chain.out_shape[0])], **more)


def sample(model, x, y=None, label=None):
    """One sample x (...), with its target as the loss takes it."""
    target = None if y is None else np.asarray(y)[None]
    return Sample(np.asarray(x)[None], label, target, "sample")


def numbers(subject, room=ROOM, x=None, index=0):
    """What a page holds, and what `inspect` shall compute: of a sample, or of another x."""
    manifest, packed = collect(subject, room)
    data = page_data(manifest, packed)
    return {
        **data,
        "x": None if x is None else np.ravel(x).tolist(),
        "sample": index if subject.samples else None,
    }


def in_node(pages, folder):
    """What the engine finds in each page, by node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node: the engine's numbers are compared in a browser alone")
    engine = folder / "engine"
    shutil.copytree(ENGINE, engine)
    shutil.copy(HERE / "explain_inspect.js", engine / "inspect.js")
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "in.json").write_text(json.dumps(list(pages)))
    command = [node, HERE / "explain_engine.mjs", engine, folder / "in.json", folder / "out.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "out.json").read_text())


SCRIPT = """
window.look = async (page) => {
  const net = await loadNet({ getElementById: (id) => ({ textContent: page[id] }) });
  return inspect(net, page.x, page.sample);
};
"""


def in_chromium(pages, folder, chromium):
    """What the engine finds in each page, by a browser."""
    inspect = (HERE / "explain_inspect.js").read_text().replace("export function", "function")
    script = (
        f"{bundle('engine/net.js')}\nconst inspect = (() => {{ {inspect}\nreturn inspect; }})();\n{SCRIPT}"
    )
    (folder / "engine.html").write_text(f'<script type="module">{script}</script>', encoding="utf-8")
    tab, errors = chromium.new_page(), []
    tab.on("pageerror", lambda error: errors.append(error))
    try:
        tab.goto((folder / "engine.html").as_uri())
        assert not errors, errors
        return [tab.evaluate("(page) => window.look(page)", page) for page in pages]
    finally:
        tab.close()


def array(a):
    """An array of the page."""
    return np.array([float(v) for v in a["data"]]).reshape(a["shape"])
