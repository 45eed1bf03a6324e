"""The tab that translates many images: files, folders and zip files in, one zip file with a report out."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio

from img2img.app.components import Files, build_direction, build_style
from img2img.app.jobs import in_words
from img2img.app.models import Entry
from img2img.app.tab import DEVICE, App, Tab, adapt_direction, adapt_style, choose_style
from img2img.app.translate import AS_INPUT, DEFAULT, as_text, build_options, read_options, run_conversion
from img2img.app.uploads import Upload, collect, pack
from img2img.core.errors import UsageError
from img2img.inference.report import Outcome, Report, Stopped


def build_folder_tab(app: App, model: gradio.Dropdown) -> Tab:
    """Adds the tab to the page that is being built."""
    with gradio.Tab("Folders", id="folders", visible=False) as tab, gradio.Row():
        with gradio.Column():
            files = Files(label="Images, or zip files of images", file_count="multiple", height=160)
            whole = Files(
                label="Or a folder. Pack sub-folders into a zip file: a browser forgets them",
                file_count="directory",
                height=160,
                elem_id="folder-whole",
            )
            instance_photo = Files(
                label="Their instance maps, of the same names, or a zip file of them",
                file_count="multiple",
                height=120,
                visible=False,
            )
            directions = build_direction()
            styles = build_style()
            with gradio.Accordion("Options", open=False):
                options = build_options()
            with gradio.Row():
                start = gradio.Button("Translate all", variant="primary", elem_id="convert-start")
                stop = gradio.Button("Stop")
        with gradio.Column():
            result = gradio.File(label="Results and report", interactive=False, elem_id="folder-result")
            said = gradio.Markdown()

    @in_words
    def convert_files(
        request: gradio.Request,
        model: str,
        images: list[Upload],
        folder: list[Upload],
        instances: list[Upload] | None = None,
        direction: str | None = None,
        style: str | None = None,
        format: str = AS_INPUT,
        size: float | None = 0,
        mode: str = DEFAULT,
        seed: float | None = 0,
        progress: gradio.Progress = gradio.Progress(),  # noqa: B008 (Gradio finds it by this)
    ) -> tuple[str, str]:
        if not images and not folder:
            raise UsageError("give images, a folder or a zip file first.")
        translator = app.models.translator(model, direction)
        chosen, wanted = read_options(format, size, mode, seed), choose_style(style)
        with app.jobs.run(request, progress) as (work, watch):
            inputs, outputs, maps = work / "inputs", work / "outputs", work / "instances"
            refused: list[Outcome] = []
            try:
                refused += collect([*images, *folder], inputs, watch)
                refused += collect(instances or [], maps, watch)
                more = {"style": wanted, "instances": maps if instances else None}
                report = run_conversion(app, translator, inputs, outputs, chosen, watch, **more)
            except Stopped as stopped:
                report = stopped.report
                report.notes.append("Stopped. What was done until then is in the zip file; other images are missing.")
            try:
                report = shorten_names(report, work, refused)
                outputs.mkdir(exist_ok=True)
                pack(work / "translations.zip", outputs, "".join(outcome.line() for outcome in report.outcomes))
            finally:
                for part in (inputs, outputs, maps):
                    shutil.rmtree(part, ignore_errors=True)
        return str(work / "translations.zip"), as_text([report.summary(), *report.remarks()])

    inputs = [model, files, whole, instance_photo, directions, styles, *options]
    cleared = start.click(lambda: (None, ""), None, [result, said], queue=False, api_visibility="private")
    cleared.then(convert_files, inputs, [result, said], api_name="convert", **DEVICE)
    stop.click(app.jobs.stop, queue=False, api_visibility="private")

    def adapt(entry: Entry | None) -> list[Any]:
        config = entry.translator if entry else None
        return [
            gradio.update(visible=config is not None),
            gradio.update(visible=bool(config and config.edges)),
            adapt_direction(entry),
            adapt_style(config),
        ]

    return Tab([tab, instance_photo, directions, styles], adapt)


def shorten_names(report: Report, work: Path, refused: Sequence[Outcome]) -> Report:
    """A report that names files as they were sent, with what was not taken."""

    def shorten(text: str) -> str:
        for part in ("inputs", "outputs", "instances"):
            text = text.replace(f"{work / part}/", "")
        return text

    outcomes = [
        replace(each, source=shorten(each.source), target=shorten(each.target), reason=shorten(each.reason))
        for each in report.outcomes
    ]
    return replace(report, outcomes=[*outcomes, *refused])
