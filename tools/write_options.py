"""Writes docs/options.md from the settings of all methods and networks.

python tools/write_options.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tyro.conf import Suppress

from img2img.config import FinetuneConfig, RunConfig, run_type
from img2img.data.base import DataConfig
from img2img.methods import METHODS, load_method
from img2img.networks import DISCRIMINATORS, GENERATORS, NOISE_DISCRIMINATORS, NOISE_GENERATORS

FILE = Path(__file__).parent.parent / "docs" / "options.md"
HEAD = """# Options

This page is written by `python tools/write_options.py` from the settings themselves. `img2img train METHOD --help` shows
the options of one method, `img2img train METHOD --generator.kind KIND --help` those of another network. A YAML file for
`--config` has the same names; a run's `config.yaml` is such a file.
"""
COMMON = {name for name in RunConfig.model_fields if name not in ("method", "data", "finetune")}


def list_options(
    settings: type[BaseModel], prefix: str, but: frozenset[str] = frozenset(), filled: BaseModel | None = None
) -> Iterator[tuple[str, str, str]]:
    """The options of settings: name, default, and what they do."""
    for name, field in settings.model_fields.items():
        if name in but or any(each is Suppress for each in field.metadata):
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        default = getattr(filled, name) if filled else default  # a method's part may have others than the class
        if isinstance(default, BaseModel) and name in ("generator", "discriminator"):
            kind = getattr(default, "kind", "")
            yield (
                f"--{prefix}{name}.kind",
                kind,
                (field.description or "").removesuffix(".") + "; its options are listed below.",
            )
        elif isinstance(default, BaseModel):
            yield from list_options(type(default), f"{prefix}{name}.", filled=default)
        else:
            yield f"--{_name(name, field, prefix)}", _format(default), field.description or ""


def _name(name: str, field: FieldInfo, prefix: str) -> str:
    """As the command line spells it: some settings of rooms stand at the top level."""
    for each in field.metadata:
        if getattr(each, "prefix_name", True) is False:
            return str(each.name)
    return f"{prefix}{name}".replace("_", "-")


def _format(default: Any) -> str:
    if default is None or default in ((), ""):
        return ""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return " ".join(map(_format, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def write_table(rows: Iterator[tuple[str, str, str]] | list[tuple[str, str, str]]) -> str:
    """A Markdown table."""
    lines = ["| Option | Default | |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {f'`{default}`' if default else ''} | {text.replace('|', chr(92) + '|')} |"
        for name, default, text in rows
    ]
    return "\n".join(lines)


def write_options() -> str:
    """The page."""
    parts = [HEAD]
    run = list(list_options(RunConfig, "", frozenset({"method", "data", "finetune"})))
    parts += ["## Of every run\n", write_table(run)]
    parts += ["\n## Data\n", write_table(list_options(DataConfig, "data."))]
    parts += ["\n## Fine-tuning\n", write_table(list_options(FinetuneConfig, "finetune."))]
    for method in METHODS:
        settings = load_method(method)
        changed = list(_changed_defaults(method))
        parts += [f"\n## {method}\n", write_table([*list_options(settings, "", frozenset({"name"})), *changed])]
    for title, role, registered in (
        ("Generators of translators", "generator", GENERATORS),
        ("Discriminators of translators", "discriminator", DISCRIMINATORS),
        ("Generators of images from noise", "generator", NOISE_GENERATORS),
        ("Discriminators of images from noise", "discriminator", NOISE_DISCRIMINATORS),
    ):
        parts.append(f"\n## {title}")
        for kind, (config, _) in registered.items():
            rows = list_options(config, f"{role}.", frozenset({"kind"}))
            parts += [f"\n### `--{role}.kind {kind}`\n", write_table(rows)]
    return "\n".join(parts) + "\n"


def _changed_defaults(method: str) -> Iterator[tuple[str, str, str]]:
    """Settings of the run that have another default with a method."""
    usual, own = run_type("pix2pix")(method={"name": "pix2pix"}), run_type(method)(method={"name": method})
    for name in sorted(COMMON):
        if getattr(usual, name) != getattr(own, name):
            yield f"--{name.replace('_', '-')}", _format(getattr(own, name)), "Another default than elsewhere."
    for name, field in DataConfig.model_fields.items():
        if getattr(usual.data, name) != getattr(own.data, name):
            yield (
                f"--{_name(name, field, 'data.')}",
                _format(getattr(own.data, name)),
                "Another default than elsewhere.",
            )


if __name__ == "__main__":
    FILE.write_text(write_options(), encoding="utf-8")
    print(f"{FILE} is written.")
