"""Pictures of storage: a cell for each page (or bucket of pages), coloured by state, as PNG, SVG, on a terminal or as
text.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from html import escape

import numpy as np
from numpy.typing import NDArray

from zseal.arch.storage import PAGE_SHIFT
from zseal.ultravisor.tables import FrameState, PageState, States, count_states

_ESCAPE, _RESET = "\x1b[48;2;{};{};{}m", "\x1b[0m"
# margin, text line, room for the caption and for addresses, in pixels
_MARGIN, _LINE, _CAPTION_WIDTH, _ADDRESS_WIDTH = 12, 18, 360, 90
_BLACK = (0, 0, 0)
_MAX_CELLS = 1 << 20
"""More pages than this share cells, because a larger picture would show nothing more."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """How one state is shown; a cell of several pages shows the state with the highest ``rank``."""

    name: str
    colour: tuple[int, int, int]
    letter: str
    rank: int


# The colours are distinct with every kind of colour vision (Okabe and Ito).
_UNUSED = Kind("unused", (229, 229, 229), ".", 0)
_PRIVATE = Kind("private", (0, 114, 178), "#", 1)
_EXPORTED = Kind("exported", (86, 180, 233), "e", 2)
_SHARED = Kind("shared", (230, 159, 0), "s", 4)
_PINNED = Kind("pinned", (213, 94, 0), "P", 5)
_SHARED_OUT = Kind("shared, not resident", (240, 228, 66), "o", 3)
_LOST = Kind("lost", (0, 0, 0), "x", 6)
_PINNED_CODE = len(PageState)
UNPROTECTED_CODE = _PINNED_CODE + 1
"""For viewers: the pages of a guest that is not (yet) protected, about which the ultravisor knows nothing."""

GUEST_KINDS = {
    PageState.UNUSED.value: _UNUSED,
    PageState.PRIVATE.value: _PRIVATE,
    PageState.SHARED.value: _SHARED,
    PageState.EXPORTED.value: _EXPORTED,
    PageState.SHARED_OUT.value: _SHARED_OUT,
    PageState.LOST.value: _LOST,
    _PINNED_CODE: _PINNED,
    UNPROTECTED_CODE: Kind("unprotected", (153, 153, 153), "u", 7),
}
HOST_KINDS = {
    FrameState.NON_SECURE.value: Kind("non-secure", (229, 229, 229), ".", 0),
    FrameState.DONATED.value: Kind("donated", (0, 158, 115), "D", 2),
    FrameState.SECURE.value: Kind("secure", (0, 114, 178), "#", 1),
    FrameState.SHARED.value: _SHARED,
    FrameState.PINNED.value: _PINNED,
}


@dataclasses.dataclass(frozen=True)
class PageMap:
    """The states of consecutive pages: a code each, with the meaning of the codes. ``first`` is the first page's
    number.
    """

    title: str
    states: States
    kinds: dict[int, Kind]
    first: int = 0

    def counts(self) -> dict[str, int]:
        """Return how many pages are in each state that occurs."""
        return {kind.name: count for kind, count in self._legend()}

    def _legend(self) -> list[tuple[Kind, int]]:
        found = count_states(self.states, max(self.kinds) + 1)
        return [(kind, int(found[code])) for code, kind in self.kinds.items() if found[code]]

    def runs(self) -> list[tuple[int, int, str]]:
        """Return (first page, pages, state) of every run of pages in the same state."""
        if not self.states.size:
            return []
        edges = np.flatnonzero(np.diff(self.states)) + 1
        bounds = [0, *edges.tolist(), self.states.size]
        return [
            (self.first + begin, end - begin, self.kinds[int(self.states[begin])].name)
            for begin, end in itertools.pairwise(bounds)
        ]

    def to_text(self) -> str:
        """Return the runs as lines of text: address range, pages, state."""
        return "".join(
            f"{page << PAGE_SHIFT:#014x}-{((page + count) << PAGE_SHIFT) - 1:#014x} {count:>9} {name}\n"
            for page, count, name in self.runs()
        )

    def cells(self, limit: int) -> tuple[States, int]:
        """Return at most ``limit`` codes, and how many pages each represents."""
        bucket = max(1, -(-self.states.size // limit))
        if bucket == 1:
            return self.states, 1
        ranks = np.zeros(max(self.kinds) + 1, np.uint8)
        by_rank = np.zeros(max(kind.rank for kind in self.kinds.values()) + 1, np.uint8)
        for code, kind in self.kinds.items():
            ranks[code], by_rank[kind.rank] = kind.rank, code
        padded = np.zeros(-(-self.states.size // bucket) * bucket, np.uint8)
        padded[: self.states.size] = ranks[self.states]
        return by_rank[padded.reshape(-1, bucket).max(axis=1)], bucket

    def to_terminal(self, *, width: int = 64, height: int = 32, colour: bool = True) -> str:
        """Return a picture of at most ``height`` lines of ``width`` cells, and a legend below.

        Without ``colour``, each state is a letter.
        """
        cells, bucket = self.cells(width * height)
        lines = [self._caption(bucket)]
        for at in range(0, cells.size, width):
            row = ""
            for code, run in itertools.groupby(cells[at : at + width].tolist()):
                kind, length = self.kinds[code], len(list(run))
                row += _ESCAPE.format(*kind.colour) + " " * length if colour else kind.letter * length
            row += _RESET if colour else ""
            lines.append(f"{(self.first + at * bucket) << PAGE_SHIFT:#014x} {row}")
        for kind, count in self._legend():
            sign = _ESCAPE.format(*kind.colour) + "  " + _RESET if colour else kind.letter
            lines.append(f"{sign} {kind.name}: {count}")
        return "\n".join(lines) + "\n"

    def _caption(self, bucket: int) -> str:
        return f"{self.title}: {self.states.size} pages, {bucket} a cell"

    def _address(self, row: int, cells: int) -> str:
        """The address of the first page of each row of ``cells`` cells."""
        return f"{(self.first + row * cells) << PAGE_SHIFT:#x}"

    def to_png(self, *, width: int = 256, scale: int = 4, legend: bool = True) -> bytes:
        """Return a PNG with a square of ``scale`` pixels for each page, ``width`` pages in a row, and a legend."""
        from PIL import Image, ImageDraw

        cells, bucket = self.cells(_MAX_CELLS)
        blank = max(self.kinds) + 1
        grid = np.full((max(1, -(-cells.size // width)), width), blank, np.uint8)
        grid.reshape(-1)[: cells.size] = cells
        image = Image.fromarray(np.repeat(np.repeat(grid, scale, axis=0), scale, axis=1), mode="P")
        palette = [255] * (3 * (blank + 2))
        palette[-3:] = _BLACK
        for code, kind in self.kinds.items():
            palette[3 * code : 3 * code + 3] = kind.colour
        if legend:
            lines = [(kind, f"{kind.name}: {count}") for kind, count in self._legend()]
            size = (max(image.width, _CAPTION_WIDTH), image.height + _LINE * (len(lines) + 1) + _MARGIN)
            picture, top = Image.new("P", size, blank), image.height + _MARGIN // 2
            picture.paste(image)
            draw = ImageDraw.Draw(picture)
            draw.text((_MARGIN, top), self._caption(bucket), fill=blank + 1)
            codes = {kind: code for code, kind in self.kinds.items()}
            for number, (kind, text) in enumerate(lines, 1):
                y = top + _LINE * number
                draw.rectangle((_MARGIN, y, _MARGIN + 11, y + 11), fill=codes[kind])
                draw.text((_MARGIN + 20, y), text, fill=blank + 1)
            image = picture
        image.putpalette(palette)
        out = io.BytesIO()
        image.save(out, "PNG", optimize=True)
        return out.getvalue()

    def to_svg(self, *, width: int = 128, height: int = 256, cell: int = 6) -> str:
        """Return an SVG of at most ``height`` rows of ``width`` cells, ``cell`` pixels each.

        Addresses are on the left, the legend is below. Runs of cells are drawn as one shape.
        """
        cells, bucket = self.cells(width * height)
        rows = -(-cells.size // width)
        legend = self._legend()
        left, top = _MARGIN + _ADDRESS_WIDTH, _MARGIN + _LINE
        total = top + rows * cell + _LINE * (len(legend) + 1)
        across = max(left + _MARGIN + width * cell, _CAPTION_WIDTH)
        caption = escape(self._caption(bucket))
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{across}" height="{total}" '
            f'font-family="sans-serif" font-size="13" role="img"><title>{caption}</title>',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            f'<text x="{_MARGIN}" y="{_MARGIN + 6}">{caption}</text>',
        ]
        for row in range(0, rows, -(-2 * _LINE // cell)):
            parts.append(
                f'<text x="{left - 6}" y="{top + row * cell + 9}" font-size="11" text-anchor="end">'
                f"{self._address(row, width * bucket)}</text>"
            )
        for row in range(rows):
            line = cells[row * width : (row + 1) * width]
            edges = [0, *(np.flatnonzero(np.diff(line)) + 1).tolist(), line.size]
            for begin, end in itertools.pairwise(edges):
                parts.append(
                    f'<rect x="{left + begin * cell}" y="{top + row * cell}" '
                    f'width="{(end - begin) * cell}" height="{cell}" fill="{_hex(self.kinds[int(line[begin])])}"/>'
                )
        for number, (kind, count) in enumerate(legend):
            y = top + rows * cell + _LINE * number + 8
            parts.append(f'<rect x="{left}" y="{y}" width="12" height="12" fill="{_hex(kind)}"/>')
            parts.append(f'<text x="{left + 20}" y="{y + 11}">{escape(kind.name)}: {count}</text>')
        return "\n".join([*parts, "</svg>"]) + "\n"


def _hex(kind: Kind) -> str:
    return "#{:02x}{:02x}{:02x}".format(*kind.colour)


def guest_states(states: States, frames: NDArray[np.uint32], frame_states: States) -> States:
    """Return page states for :data:`GUEST_KINDS`: those of the page table, but pinned pages are distinct."""
    codes = states.copy()
    shared = np.flatnonzero(states == PageState.SHARED)
    codes[shared[frame_states[frames[shared]] == FrameState.PINNED]] = _PINNED_CODE
    return codes
