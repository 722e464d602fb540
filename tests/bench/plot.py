"""The ratios of a bench as one picture: an SVG, written by hand. Pure.

A row for each figure, a mark for each peer at how many times the peer's figure ours is, with a line from the least to the most of the
rounds, on a logarithmic axis. Left of 1 ours needs less.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

from tests.bench.figures import Spread

_COLOURS = ("#0b6e4f", "#b5651d", "#4457a6", "#8c2f39")
_LEFT, _RIGHT, _TOP = 330, 40, 70
_PLOT, _ROW = 560, 34
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def plot(title: str, rows: Sequence[tuple[str, Mapping[str, Spread]]], goals: Mapping[str, float]) -> str:
    """The picture of `rows`: a figure's title, and by peer the spread of our ratio to it. `goals` are ratios by the same titles."""
    peers = list(dict.fromkeys(peer for _, by_peer in rows for peer in by_peer))
    ends = [end for _, by_peer in rows for found in by_peer.values() for end in (found.least, found.most) if end > 0]
    low, high = min([0.5, *ends]) / 1.15, max([2.0, *ends]) * 1.15
    height = _TOP + _ROW * len(rows) + 40

    def x(ratio: float) -> str:
        inside = min(high, max(low, ratio))
        return f"{_LEFT + _PLOT * math.log(inside / low) / math.log(high / low):.1f}"

    bottom = height - 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _PLOT + _RIGHT}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="16" font-weight="bold">{escape(title)}</text>',
    ]
    for number, peer in enumerate(peers):
        parts.append(f'<circle cx="{_LEFT + 130 * number}" cy="44" r="5" fill="{_colour(number)}"/>')
        parts.append(f'<text x="{_LEFT + 130 * number + 10}" y="48">to {escape(peer)}</text>')
    for tick in (tick for tick in _TICKS if low <= tick <= high):
        stroke = 'stroke="#333333" stroke-width="1.5"' if tick == 1 else 'stroke="#dddddd"'
        parts.append(f'<line x1="{x(tick)}" y1="{_TOP - 8}" x2="{x(tick)}" y2="{bottom}" {stroke}/>')
        parts.append(f'<text x="{x(tick)}" y="{bottom + 18}" text-anchor="middle" fill="#555555">{tick:g}x</text>')
    for row, (name, by_peer) in enumerate(rows):
        middle = _TOP + _ROW * row + _ROW / 2
        parts.append(f'<text x="{_LEFT - 12}" y="{middle + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        if name in goals:
            at = x(goals[name])
            parts.append(
                f'<line x1="{at}" y1="{middle - 13:.1f}" x2="{at}" y2="{middle + 13:.1f}" stroke="#c1121f" stroke-width="3">'
                f"<title>goal: {goals[name]:g}x</title></line>"
            )
        for peer, found in by_peer.items():
            number = peers.index(peer)
            y = f"{middle + 7 * (number - (len(peers) - 1) / 2):.1f}"
            parts.append(
                f'<line x1="{x(found.least)}" y1="{y}" x2="{x(found.most)}" y2="{y}" stroke="{_colour(number)}" stroke-width="2"/>'
                f'<circle cx="{x(found.median)}" cy="{y}" r="4.5" fill="{_colour(number)}">'
                f"<title>{escape(peer)}: {found.median:.2f}x ({found.least:.2f} to {found.most:.2f})</title></circle>"
            )
    note = "median and range over the rounds; left of 1 ours needs less" + ("; red: the goal" if goals else "")
    parts += [f'<text x="{_LEFT}" y="{height - 4}" font-size="11" fill="#555555">{note}</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
