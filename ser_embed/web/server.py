"""The classifier as a page in the browser: files, the microphone, many files at once.

`python -m ser_embed.web` serves it on this machine alone. It asks no other server for anything,
sends nothing anywhere, and what people upload is deleted when it ends, or after an hour.
"""

import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ser_embed.audio import AudioFile
from ser_embed.command import Outcome
from ser_embed.errors import MissingExtra, WebError
from ser_embed.live import stop_on_signals
from ser_embed.predict import Classifier, SegmentSettings
from ser_embed.web.options import WebConfig
from ser_embed.web.tabs import Tabs

__all__ = ["build_app", "serve"]

log = logging.getLogger(__name__)

KEPT_SECONDS = 3600  # that an upload stays on the disk
LIVE_EVERY = 0.5  # seconds from one block of the microphone to the next
AT_ONCE = 2  # jobs done at the same time in each tab
WAITING = 20  # jobs that wait for their turn; a visitor who comes then is asked to try later

# The browser itself refuses what would come from elsewhere, whatever a library's page asks for.
_POLICY = (
    b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'self'; "
    b"base-uri 'self'; form-action 'self'"
)


# --- the page ----------------------------------------------------------------------------------


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise MissingExtra("gradio", "web") from error
    return gradio


def build_app(tabs: Tabs, config: WebConfig) -> Any:
    """Return the page as a `gradio.Blocks`, not yet served.

    Raises:
        MissingExtra: gradio isn't installed.
    """
    gr = _gradio()
    limits = f"up to {config.max_mb} MB, {config.max_minutes:g} minutes"
    with gr.Blocks(
        title=f"{tabs.classifier.run.name} - ser_embed",
        analytics_enabled=False,
        delete_cache=(600, KEPT_SECONDS),
    ) as app:
        gr.HTML(tabs.headline())
        with gr.Tab("File"):
            _file_tab(gr, tabs, limits)
        # Rendered with the page: Gradio's recorder ignores who presses before it was fetched.
        with gr.Tab("Live", render_children=True):
            _live_tab(gr, tabs)
        with gr.Tab("Batch"):
            _batch_tab(gr, tabs, limits)
        with gr.Accordion("About the model", open=False):
            gr.HTML(tabs.about())
    app.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)
    return app


def _file_tab(gr: Any, tabs: Tabs, limits: str) -> None:
    audio = gr.Audio(
        label=f"Recording, {limits}", type="filepath",
        sources=["upload", "microphone"], editable=False, buttons=[],
    )  # fmt: skip
    shown = gr.HTML()

    def _show(path: str | None, progress: Any = gr.Progress()) -> str:  # noqa: B008
        if not path:
            return ""
        return tabs.show_file(Path(path), lambda done, text: progress(done, desc=text))

    audio.change(_show, audio, shown, api_visibility="private", trigger_mode="always_last")


def _live_tab(gr: Any, tabs: Tabs) -> None:
    audio = gr.Audio(
        label="Microphone", type="numpy", sources=["microphone"], streaming=True, buttons=[]
    )
    shown = gr.HTML(tabs.show_live(None))
    state = gr.State(None, time_to_live=KEPT_SECONDS)
    private = {"api_visibility": "private", "show_progress": "hidden"}
    audio.start_recording(lambda: None, None, state, **private)
    audio.stream(
        tabs.stream, [audio, state], [shown, state], stream_every=LIVE_EVERY,
        time_limit=round(60 * tabs.max_minutes), **private,
    )  # fmt: skip
    audio.stop_recording(tabs.stop_stream, state, [shown, state], **private)


def _batch_tab(gr: Any, tabs: Tabs, limits: str) -> None:
    files = gr.File(
        label=f"Up to {tabs.max_files} recordings",
        file_count="multiple", file_types=list(AudioFile.ENDINGS), height=180,
    )  # fmt: skip
    with gr.Row():
        start = gr.Button("Classify", variant="primary")
        stop = gr.Button("Stop")
    shown = gr.HTML()

    def _show(paths: list[str] | None) -> Iterator[str]:
        yield from tabs.show_batch([Path(path) for path in paths or []])

    working = start.click(_show, files, shown, api_visibility="private")
    stop.click(None, None, None, cancels=[working], api_visibility="private")


class _OwnSourcesOnly:
    """ASGI middleware: makes browsers ask no other server, and lets visitors leave."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.requests import ClientDisconnect

        async def _send(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", _POLICY)
                message["headers"] = [*message.get("headers", []), policy]
            await send(message)

        with contextlib.suppress(ClientDisconnect):  # the page was closed while it sends
            await self.app(scope, receive, _send if scope["type"] == "http" else send)


# --- the command -------------------------------------------------------------------------------


def serve(config: WebConfig) -> Outcome:
    """Serve the page until Ctrl-C.

    Raises:
        SerEmbedError: gradio is missing, there is no run, or the address is taken.
    """
    settings = _check(config)
    gr = _gradio()
    classifier = Classifier.load(config.run, config.runs_dir, config.backend)
    log.info("%s: %s", classifier.run, classifier.about)
    with tempfile.TemporaryDirectory(prefix="ser_embed-") as uploads, stop_on_signals() as stop:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        tabs = Tabs(classifier, settings, config.max_minutes, config.max_files)
        app = build_app(tabs, config)
        from starlette.middleware import Middleware

        _, url, _ = app.launch(
            server_name=config.host, server_port=config.port, share=False, quiet=True,
            prevent_thread_lock=True, inbrowser=False, ssr_mode=False, run_history=False,
            footer_links=[], max_file_size=config.max_mb * 10**6, state_session_capacity=200,
            css_paths=Path(__file__).with_name("web.css"),
            theme=_theme(gr),
            app_kwargs={"middleware": [Middleware(_OwnSourcesOnly)]},
        )  # fmt: skip
        log.info("open %s in a browser; Ctrl-C ends", url)
        stop.wait()
        tabs.close()
        app.close(verbose=False)
    return Outcome({"url": url, "run": str(classifier.run)})


def _theme(gr: Any) -> Any:
    """Return Gradio's look with the system's fonts and with text that is dark enough to read."""
    theme = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )  # fmt: skip
    return theme.set(
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_400",
        color_accent="*primary_600", block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
    )  # fmt: skip


def _check(config: WebConfig) -> SegmentSettings:
    """Say what is wrong now, not after the model has been loaded."""
    for name in ("max_mb", "max_minutes", "max_files"):
        if getattr(config, name) <= 0:
            raise WebError(f"--{name.replace('_', '-')}: give a number above 0")
    try:
        with socket.create_server((config.host, config.port)):
            pass
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WebError(
            f"can't serve on {config.host}, port {config.port} ({reason}); give "
            "another --port, or the --host of this machine"
        ) from error
    return SegmentSettings(threshold=config.threshold)
