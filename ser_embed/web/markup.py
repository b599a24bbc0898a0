"""What the page shows, as HTML: a recording over time, bars, tables, files, the model's card.

Pure functions of numbers. The pictures are SVG that stretches with the page; their text is HTML
beside it, so it stays readable on a phone. The look is in `web.css`.
"""

import html
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ser_embed.predict import NO_SPEECH, UNSURE, Piece, Segment, clock

__all__ = [
    "draw_about", "draw_bars", "draw_error", "draw_files", "draw_now", "draw_segments",
    "draw_table", "draw_track", "frame", "list_shares",
    "percent",
]  # fmt: skip

# Each has a contrast of 3 or more to white and to the dark background.
HUES = {
    "positive": "#0d9f6e", "neutral": "#3b82f6", "negative": "#e0457b", "happy": "#d97706",
    "sad": "#3b82f6", "angry": "#e5484d", "fearful": "#8b5cf6", "disgust": "#7c8a1c",
    "surprised": "#d946a6", "calm": "#0891b2", NO_SPEECH: "#7d8ba1", UNSURE: "#78716c",
}  # fmt: skip
OTHER_HUES = (
    "#3b82f6", "#d97706", "#0d9f6e", "#e0457b", "#8b5cf6", "#0891b2", "#7c8a1c", "#a16207",
)  # fmt: skip

WIDTH = 1000  # units of the pictures; the page stretches them
WAVE, CHART = 100, 120  # their heights
TICKS = 6  # of the time axis, at most
COLUMNS = 600  # of the waveform
# Share of the width that a letter takes: a name is shown where it fits.
LETTER, LETTER_ON_PHONE = 0.010, 0.025


def frame(*parts: str, alert: bool = False) -> str:
    """Put parts on the page; an alert is read out at once."""
    role = ' role="alert"' if alert else ""
    return f'<div class="ser"{role}>{"".join(parts)}</div>'


def draw_error(message: object) -> str:
    """Say what went wrong."""
    return frame(f'<p class="wrong">{html.escape(str(message))}</p>', alert=True)


def percent(share: float | None) -> str:
    """Return a share as text, nothing for None."""
    return "" if share is None else f"{share:.0%}"


def draw_now(segment: Segment, classes: Sequence[str]) -> str:
    """Show one segment: its label, confidence, and a bar a class in the classes' order."""
    sure = "" if segment.confidence is None else f" <small>{percent(segment.confidence)}</small>"
    if segment.label == UNSURE and segment.probabilities:
        best = max(segment.probabilities, key=lambda name: segment.probabilities[name])
        sure = f" <small>perhaps {html.escape(best)}, {percent(segment.confidence)}</small>"
    shares = {name: segment.probabilities.get(name, 0.0) for name in classes}
    return f'<p class="said">{html.escape(segment.label)}{sure}</p>{draw_bars(shares)}'


def draw_bars(shares: Mapping[str, float]) -> str:
    """Show a bar a class; the order doesn't follow the shares, or the bars would jump."""
    hues = _hues(list(shares))
    rows = (
        f'<span>{html.escape(name)}</span><span class="bar" aria-hidden="true">'
        f'<i style="--share:{share:.1%};--hue:{hues[name]}"></i></span>'
        f'<span class="share">{percent(share)}</span>'
        for name, share in shares.items()
    )
    return f'<div class="bars">{"".join(rows)}</div>'


def draw_track(
    pieces: Sequence[Piece],
    segments: Sequence[Segment],
    classes: Sequence[str],
    threshold: float,
    peaks: np.ndarray | None = None,
) -> str:
    """Show a stretch of time: segments by name, waveform, each class's probability, times.

    Args:
        pieces: Probabilities over time, not empty.
        segments: The same, merged.
        classes: Class names.
        threshold: Drawn as a line: under it a piece is unsure.
        peaks: Loudest samples at equal distances from start to end; None draws no waveform.
    """
    start, end = pieces[0].start, pieces[-1].end
    scale = WIDTH / (end - start)
    hues = _hues(classes)
    told = ", ".join(f"{s.label} from {clock(s.start)} to {clock(s.end)}" for s in segments[:20])
    wave = "" if peaks is None else _wave(peaks, segments, hues, start, scale)
    legend = "".join(
        f'<span><span class="swatch" style="--hue:{hues[name]}"></span>{html.escape(name)}</span>'
        for name in (*classes, NO_SPEECH)
    )
    return (
        f'<div class="track" role="img" aria-label="{html.escape(told)}">'
        f'<div class="names">{_names(segments, hues, start, end)}</div>{wave}'
        f"{_chart(pieces, classes, threshold, hues, start, scale)}{_times(start, end)}</div>"
        f'<div class="legend" aria-hidden="true">{legend}</div>'
    )


def _hues(classes: Sequence[str]) -> dict[str, str]:
    named = {c: HUES.get(c, OTHER_HUES[i % len(OTHER_HUES)]) for i, c in enumerate(classes)}
    return {NO_SPEECH: HUES[NO_SPEECH], UNSURE: HUES[UNSURE], **named}


def _names(segments: Sequence[Segment], hues: Mapping[str, str], start: float, end: float) -> str:
    """Write the names over the segments; one may reach into the pause behind it."""
    spans = []
    for s, after in zip(segments, [*segments[1:], None], strict=True):
        left, wide = (s.start - start) / (end - start), (s.end - s.start) / (end - start)
        pause = after is not None and after.label == NO_SPEECH
        room = wide + (after.end - after.start) / (end - start) if after and pause else wide
        need = len(s.label) + 1
        fits = "" if room > need * LETTER_ON_PHONE else " roomy"
        named = s.label != NO_SPEECH and room > need * LETTER
        name, style = (
            html.escape(s.label),
            f"left:{left:.3%};width:{wide:.3%};--hue:{hues[s.label]}",
        )
        spans.append(f'<span class="name{fits}" style="{style}" title="{name}">'
                     f'<b>{name if named else ""}</b></span>')  # fmt: skip
    return "".join(spans)


def _wave(
    peaks: np.ndarray,
    segments: Sequence[Segment],
    hues: Mapping[str, str],
    start: float,
    scale: float,
) -> str:
    """Draw the loudness over time, scaled to the loudest, each segment in its colour."""
    n = min(COLUMNS, len(peaks))
    loudest = np.maximum.reduceat(peaks, np.arange(n) * len(peaks) // n)
    heights = loudest / max(float(peaks.max()), 0.01) * (WAVE / 2 - 2) + 0.5
    middles = (np.arange(n) + 0.5) * WIDTH / n
    paths = []
    for s in segments:
        left, right = (s.start - start) * scale, (s.end - start) * scale
        inside = (middles >= left) & (middles < right)
        steps = "".join(
            f"M{x:.1f} {WAVE / 2 - h:.1f}V{WAVE / 2 + h:.1f}"
            for x, h in zip(middles[inside], heights[inside], strict=True)
        )
        paths.append(f'<path d="{steps}" stroke="{hues[s.label]}"/>')
    stroke = 0.8 * WIDTH / n
    return (
        f'<svg viewBox="0 0 {WIDTH} {WAVE}" height="{WAVE}" preserveAspectRatio="none" '
        f'aria-hidden="true" stroke-width="{stroke:.2f}">{"".join(paths)}</svg>'
    )


def _chart(
    pieces: Sequence[Piece],
    classes: Sequence[str],
    threshold: float,
    hues: Mapping[str, str],
    start: float,
    scale: float,
) -> str:
    """Draw each class's probability as steps that break where nobody speaks."""
    lines = []
    for i, name in enumerate(classes):
        path, open_line = [], False
        for piece in pieces:
            if piece.probabilities is None:
                open_line = False
                continue
            height = CHART * (1 - piece.probabilities[i])
            left, right = (piece.start - start) * scale, (piece.end - start) * scale
            path.append(f"V{height:.1f}" if open_line else f"M{left:.1f} {height:.1f}")
            path.append(f"H{right:.1f}")
            open_line = True
        lines.append(f'<path class="line" d="{"".join(path)}" stroke="{hues[name]}"/>')
    grid = "".join(
        f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in (0, CHART / 2, CHART)
    )
    y = CHART * (1 - threshold)
    grid += f'<line class="threshold" x1="0" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
    shares = "".join(
        f'<span class="shares" style="top:{top}%">{100 - top}%</span>' for top in (0, 50, 100)
    )
    return (
        f'<div class="chart">{shares}<svg viewBox="0 0 {WIDTH} {CHART}" height="{CHART}" '
        f'preserveAspectRatio="none" aria-hidden="true">{grid}{"".join(lines)}</svg></div>'
    )


def _times(start: float, end: float) -> str:
    """Draw the time axis, with round times."""
    rough = max(0.1, (end - start) / TICKS)
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [power, 2 * power, 5 * power, 10 * power] if rough < 10 else [15, 30, 60, 120, 300, 600]
    step = next((s for s in steps if s >= rough), math.ceil(rough / 600) * 600)
    ticks = np.arange(math.ceil(start / step), math.floor((end - 0.02 * (end - start)) / step) + 1)
    spans = "".join(
        f'<span style="left:{(t * step - start) / (end - start):.3%}">{_short(t * step)}</span>'
        for t in ticks
    )
    return f'<div class="times">{spans}</div>'


def _short(seconds: float) -> str:
    return clock(seconds).removesuffix(".0")


# --- tables, files, the card -------------------------------------------------------------------


def draw_table(head: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> str:
    """Show a table that scrolls in itself; the last column is long text, a row without it quiet."""
    first = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    body = []
    for *cells, last in rows:
        told = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        quiet = "" if last else ' class="quiet"'
        body.append(f'<tr{quiet}>{told}<td class="wide">{html.escape(last)}</td></tr>')
    return (
        f'<div class="scroll {name.lower()}" tabindex="0" role="region" aria-label="{name}">'
        f"<table><thead><tr>{first}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def draw_segments(segments: Sequence[Segment]) -> str:
    """Show segments as a table."""
    rows = [
        [clock(s.start), clock(s.end), s.label, percent(s.confidence), list_shares(s.probabilities)]
        for s in segments
    ]
    head = ("start", "end", "label", "confidence", "probabilities")
    return draw_table(head, rows, "Segments")


def list_shares(probabilities: Mapping[str, float]) -> str:
    """Return the three most probable classes in words."""
    best_first = sorted(probabilities.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {percent(share)}" for name, share in best_first)


def draw_files(files: Mapping[str, str]) -> str:
    """Offer texts for download: file name to text. They travel in the page itself.

    So nothing is kept on the server that somebody else could ask for.
    """
    links = (
        f'<a download="{html.escape(name)}" href="data:application/octet-stream;base64,'
        f'{b64encode(text.encode("utf-8", "replace")).decode()}">{html.escape(name)}</a>'
        for name, text in files.items()
    )
    return f'<div class="files" role="group" aria-label="Downloads">{"".join(links)}</div>'


def draw_about(facts: Mapping[str, Any], warnings: Sequence[str]) -> str:
    """Show what a model is and what is to be said beside it."""
    rows = (f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>" for k, v in facts.items())
    notes = (f'<p class="wrong">{html.escape(warning)}</p>' for warning in warnings)
    return f"<dl>{''.join(rows)}</dl>{''.join(notes)}"
