"""The page: the choice of a model, and the tabs that it allows."""

from typing import Any

import gradio

from img2img.app.components import Choice, Files, Photo
from img2img.app.draw import build_draw_tab
from img2img.app.explore import build_explore_tab
from img2img.app.folder import build_folder_tab
from img2img.app.jobs import in_words, report_failure
from img2img.app.limits import WAITING
from img2img.app.models import Entry
from img2img.app.paint import build_paint_tab
from img2img.app.runs import build_runs_tab
from img2img.app.tab import DEVICE, App, Tab
from img2img.app.translate import build_translate_tab
from img2img.metrics.paired import describe_scores


class Page(gradio.Blocks):
    """Answers a request whose values don't fit with a sentence; Gradio would keep the reason to itself."""

    async def preprocess_data(self, block_fn: Any, *args: Any, **kwargs: Any) -> Any:
        """The values as the function takes them."""
        try:
            return await super().preprocess_data(block_fn, *args, **kwargs)
        except gradio.Error as error:
            error.print_exception = False
            raise
        except Exception as error:
            if isinstance(error, OSError | MemoryError) or isinstance(error.__cause__, OSError | MemoryError):
                raise report_failure(error) from None
            raise gradio.Error(explain_misfit(block_fn), print_exception=False) from None


def explain_misfit(block_fn: Any) -> str:
    """What to say of values that don't fit a function."""
    if block_fn.api_visibility != "public":
        return "The values that were sent don't fit; load the page again."
    upload = " Upload files first." if any(isinstance(each, Photo | Files) for each in block_fn.inputs) else ""
    return f"The values don't fit /{block_fn.api_name}. /gradio_api/info lists its parameters.{upload}"


def build_page(app: App) -> gradio.Blocks:
    """The page with all its tabs; which are shown follows the model that is chosen."""
    with Page(title="img2img", analytics_enabled=False, fill_width=True) as page:
        names = list(app.models.entries)
        with gradio.Row():
            gradio.Markdown("# img2img")
            model = Choice(names, value=names[0] if names else None, label="Model", visible=bool(names), scale=4)
        restored = gradio.State("")
        about = gradio.Markdown(elem_classes="about")
        with gradio.Tabs() as tabs:
            built: list[Tab] = [
                build_translate_tab(app, model),
                build_folder_tab(app, model),
                build_draw_tab(app, model),
                build_paint_tab(app, model),
                build_explore_tab(app, model),
                build_runs_tab(app),
            ]

        def adapt(entry: Entry | None) -> list[Any]:
            return [describe(entry), *(update for tab in built for update in tab.adapt(entry))]

        @in_words
        def choose(name: str | None) -> list[Any]:
            return adapt(app.models.entry(name))

        @in_words
        def start(request: gradio.Request) -> list[Any]:
            app.models.scan()
            entries = app.models.entries
            asked = str(request.query_params.get("model", ""))
            name = asked if asked in entries else next(iter(entries), None)
            entry = entries[name] if name else None
            state = str(request.query_params.get("explore", "")) if entry and entry.noise_generator else ""
            first = "runs" if entry is None else "explore" if entry.noise_generator else "translate"
            chosen = gradio.update(choices=list(entries), value=name, visible=bool(entries))
            return [chosen, gradio.update(selected=first), state, *adapt(entry)]

        parts = [about, *(part for tab in built for part in tab.parts)]
        model.input(choose, model, parts, queue=False, api_visibility="private", show_progress="hidden")
        loaded = page.load(
            start, None, [model, tabs, restored, *parts], queue=False, api_visibility="private", show_progress="hidden"
        )
        for restoring in (tab.restoring for tab in built if tab.restoring):
            inputs = [model, restored]
            loaded.then(restoring.function, inputs, restoring.outputs, api_visibility="private", **DEVICE)
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return page


def describe(entry: Entry | None) -> str:
    """What a model is, for a person."""
    if entry is None:
        return "There is no model yet; the tab Runs shows the runs."
    config, training = entry.config, entry.config.training
    facts = [config.method]
    if entry.translator:
        facts.append(
            f"trained at {entry.translator.width or entry.translator.size} × {entry.translator.size} pixels; takes any size"
        )
    elif entry.noise_generator:
        facts.append(
            f"makes images of {entry.noise_generator.generator.size} × {entry.noise_generator.generator.size} pixels"
        )
    if training.updates:
        facts.append(f"{training.updates:,} updates")
    scores = describe_scores(training.scores)
    facts += [f"validation: {scores}"] if scores else []
    return " · ".join(facts)
