"""Pictures that move, as GIFs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from .style import style, whole_file

DPI = 90
REST = 2000  # milliseconds that the last frame stays


def titled(titles, count: int) -> list[str]:
    """Titles of so many frames: those given, or "frame 1 of 10" and so on."""
    if count < 1:
        raise ValueError("an animation needs frames. Received: none")
    titles = [f"frame {i + 1} of {count}" for i in range(count)] if titles is None else list(titles)
    if len(titles) != count:
        raise ValueError(f"each frame needs one title. Received: {len(titles)} titles, {count} frames")
    return titles


@style()
def animate(fig, draw: Callable, frames: Iterable, path, fps: int = 10) -> Path:
    """Draw(frame) for each of the frames, and a GIF of what fig then shows; its path.

    The last frame stays for two seconds.  The file is written whole or not at all.
    """
    if Path(path).suffix.lower() != ".gif":
        raise ValueError(f"the animation is a GIF. Received: {path}. Expected: a name that ends in .gif")
    if isinstance(fps, bool) or not 0 < fps <= 100:
        raise ValueError(f"fps must be frames a second, up to 100. Received: {fps!r}")
    with whole_file(path) as temporary:
        writer = _writer(fps)
        writer.setup(fig, str(temporary), dpi=DPI)
        for number, frame in enumerate(frames):
            draw(frame)
            writer.grab_frame()
            if number == 0:
                fig.set_layout_engine("none")  # arranged once: a picture that is laid out anew trembles
        writer.finish()
    return Path(path)


def _writer(fps: int):
    """matplotlib's GIF writer with one palette for all frames: with one for each, colours flicker."""
    from matplotlib.animation import PillowWriter
    from PIL import Image

    class Writer(PillowWriter):
        _frames: list

        def finish(self):
            samples = self._frames[:: max(1, len(self._frames) // 4)] + self._frames[-1:]
            width, height = self._frames[0].size
            sheet = Image.new("RGB", (width, height * len(samples)))
            for row, frame in enumerate(samples):
                sheet.paste(frame, (0, height * row))
            palette = sheet.quantize(method=Image.Quantize.MAXCOVERAGE)
            first, *more = (f.quantize(palette=palette, dither=Image.Dither.NONE) for f in self._frames)
            each = round(1000 / self.fps)
            durations = [each] * len(more) + [each + REST]
            first.save(self.outfile, save_all=True, append_images=more, duration=durations, loop=0)

    return Writer(fps=fps)
