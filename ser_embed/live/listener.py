"""The thread between a ring of sound and the session: gate, windows, classifier, log, recording.

It alone waits for the encoder: sound goes on arriving, and the screen goes on being drawn.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from ser_embed.audio import SAMPLE_RATE
from ser_embed.live.journal import Log, Recorder
from ser_embed.live.ring import Block, Ring
from ser_embed.live.session import Session
from ser_embed.predict import (
    Classifier,
    Piece,
    Segment,
    Segmenter,
    SegmentSettings,
    judge,
    mean_of,
    merge_pieces,
)

__all__ = ["Listener"]

TAKE_SECONDS = 0.2


class Listener(threading.Thread):
    """Judges what comes out of a ring until that ends or `close` is called.

    A stream that was interrupted is two: no window reaches over a pause, a lost device or lost
    samples. Times are seconds of sound heard.

    Args:
        ring: Where the sound comes from.
        classifier: Judges the windows.
        settings: How.
        session: What is told; its classes are the classifier's.
        log: Gets a line per window and per segment.
        recorder: Gets the sound.
        told: Gets every segment that is complete.

    Attributes:
        error: What ended it before its time.
    """

    def __init__(
        self,
        ring: Ring,
        classifier: Classifier,
        settings: SegmentSettings,
        session: Session,
        log: Log | None = None,
        recorder: Recorder | None = None,
        told: Callable[[Segment], None] | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self.ring, self.classifier, self.settings, self.session = (
            ring, classifier, settings, session,
        )  # fmt: skip
        self.log, self.recorder, self.told = log, recorder, told
        self.error: Exception | None = None
        self._offset = 0.0
        self._judged = self._dropped = 0  # by the segmenters before this one
        self._segmenter = Segmenter(classifier, settings, live=True)
        self._open: Piece | None = None  # of the segment that may go on
        self._closing = threading.Event()

    def run(self) -> None:
        """Listen."""
        try:
            while not self._closing.is_set():
                block = self.ring.take(TAKE_SECONDS)
                if block is not None:
                    self._hear(block)
                elif self.ring.ended:
                    break
            self._begin(self._offset)
            self._tell(self._open)
        except Exception as error:  # the main thread raises it
            self.error = error
        finally:
            self.session.changed.set()

    def close(self) -> None:
        """End, and judge no more than the window at hand."""
        self._closing.set()

    def _hear(self, block: Block) -> None:
        if block.gap:
            self._begin(block.start / SAMPLE_RATE)
        if self.recorder is not None:
            self.recorder.write(block.samples)
        segmenter, before = self._segmenter, self._segmenter.until
        pieces = segmenter.push(block.samples)
        latency = None
        if segmenter.until != before:
            place = round((self._offset + segmenter.until) * SAMPLE_RATE)
            latency = time.monotonic() - self.ring.arrival(place)
        now = self._moved(segmenter.now)
        self._note(pieces, now, latency)
        if self.log is not None and latency is not None:
            judged = {name: value for name, value in asdict(now).items() if name != "start"}
            self.log.write("window", **judged, latency_ms=round(latency * 1e3, 1))

    def _begin(self, offset: float) -> None:
        """End the stream so far, and begin another one at so many seconds."""
        segmenter = self._segmenter
        pieces = segmenter.finish()
        self._note(pieces, None, None)
        self._judged += segmenter.judged
        self._dropped += segmenter.dropped
        self._segmenter = Segmenter(self.classifier, self.settings, live=True)
        self._offset = offset

    def _note(self, pieces: Sequence[Piece], now: Segment | None, latency: float | None) -> None:
        moved = [p._replace(start=p.start + self._offset, end=p.end + self._offset) for p in pieces]
        session, segmenter = self.session, self._segmenter
        with session.lock:
            for piece in moved:
                session.add(piece)
            session.hear(now, latency)
            session.seconds = self.ring.pushed / SAMPLE_RATE
            session.judged = self._judged + segmenter.judged
            session.dropped = self._dropped + segmenter.dropped
        for piece in moved:
            self._merge(piece)
        if latency is not None or moved:
            session.changed.set()

    def _moved(self, segment: Segment) -> Segment:
        return Segment(
            segment.start + self._offset,
            segment.end + self._offset,
            segment.label,
            segment.confidence,
            segment.probabilities,
        )

    def _merge(self, piece: Piece) -> None:
        """Join a piece to the open segment, or tell that one and open another."""
        if self._open is None:
            self._open = piece
            return
        both = [self._open, piece]
        merged = merge_pieces(both, self.classifier.classes, self.settings.threshold)
        if len(merged) == 1 and self._open.end == piece.start:
            self._open = Piece(self._open.start, piece.end, mean_of(both))
        else:
            self._tell(self._open)
            self._open = piece

    def _tell(self, piece: Piece | None) -> None:
        if piece is None:
            return
        segment = judge(*piece, self.classifier.classes, self.settings.threshold)
        if self.log is not None:
            self.log.write("segment", **asdict(segment))
        if self.told is not None:
            self.told(segment)
