"""Recipes: lists of settings for a method and an amount of data, which whatever a user chose overrides."""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from img2img.config import RunConfig
from img2img.core.errors import UsageError
from img2img.core.settings import Strict
from img2img.data.base import DataConfig

FEW = 20_000  # training images below which the recipe for little data is chosen
Settings = Mapping[str, Any]
S = TypeVar("S", bound=Strict)
SHORT = {
    f"data.{name.replace('_', '-')}": each.name
    for name, field in DataConfig.model_fields.items()
    for each in field.metadata
    if getattr(each, "prefix_name", True) is False
}
"""Options of data without a prefix."""


def choose_recipe(config: RunConfig, images: int, in_channels: int, out_channels: int) -> RunConfig:
    """The config with a recipe's settings, which then are as if a user had chosen them.

    Args:
        config: its recipe may be auto: small for few images and a run from scratch, if the method has it, else paper.
        images: that are trained on.
        in_channels: of the sources.
        out_channels: of the images that are made.

    Raises:
        UsageError: if the method doesn't have the recipe.
    """
    name, recipes = config.recipe, config.method.recipes
    begun = config.finetune.init or config.finetune.init_discriminator
    if name == "auto":
        suits = "small" in recipes and config.method.suits_recipe()
        name = "small" if images < FEW and not begun and suits else "paper"
    if name == "small" and "small" not in recipes:
        raise UsageError(f"--recipe small: {config.method.name} has no such recipe; leave the option out.")
    named = config.model_copy(update={"recipe": name})
    spared = {  # what a run begins with, and what its images don't allow
        "generator": bool(config.finetune.init),
        "discriminator": bool(config.finetune.init_discriminator),
        "generator.residual": in_channels != out_channels,
    }
    kept = {setting for setting, is_spared in spared.items() if is_spared}
    applied = apply_recipe(named, kept)
    discriminator, side = applied.method.resolve_discriminator(), config.data.shorter_side
    judged = {out_channels} if len(config.method.directions) == 1 else {in_channels, out_channels}
    if discriminator is None or all(discriminator.fits(channels, side) for channels in judged):
        return applied
    return apply_recipe(named, kept | {"discriminator"})


def apply_recipe(config: RunConfig, without: Collection[str] = ()) -> RunConfig:
    """The config with the settings of the recipe that it names, except those that were chosen.

    Args:
        without: settings of the method, or parts of them, that are left as they are.
    """
    recipe = config.method.recipes.get(config.recipe)
    if not recipe:
        return config
    return _override(config, {**recipe, "method": _leave_out(recipe.get("method", {}), without)})


def describe_recipe(config: RunConfig) -> str:
    """A recipe and its settings, for a person; nothing where a method has the paper's only."""
    if not config.method.recipes:
        return ""
    if config.recipe == "paper":
        small = f"; --recipe small is made for fewer than {FEW:,} images" if "small" in config.method.recipes else ""
        return f"recipe paper: the settings of the paper{small}"
    applied = set(list_settings(config.method.recipes[config.recipe])) & set(list_settings(config.model_dump()))
    settings = " ".join(as_option(name, value) for name, value in sorted(applied))
    return f"recipe {config.recipe}, made for fewer than {FEW:,} images: {settings}; --recipe paper takes the paper's settings"


def as_option(name: str, value: str) -> str:
    """A setting as it is typed."""
    part, dot, last = f"--{name}".rpartition(".")
    off = f"{part}.no-{last}" if dot else f"--no-{name}"
    return {"True": f"--{name}", "False": off}.get(value, f"--{name} {value}")


def name_option(setting: str) -> str:
    """The name of a setting's option: some have no prefix."""
    return SHORT.get(setting, setting.removeprefix("finetune."))


def list_settings(settings: Settings, prefix: str = "") -> list[tuple[str, str]]:
    """Settings by the names of their options, without dashes at the beginning."""
    found: list[tuple[str, str]] = []
    for name, value in settings.items():
        own = prefix + name.replace("_", "-")
        if isinstance(value, Mapping):
            found += list_settings(value, "" if name == "method" else f"{own}.")
        else:
            found.append((own, str(value)))
    return found


def _leave_out(settings: Settings, without: Collection[str], prefix: str = "") -> Settings:
    """Settings without those of these names, and those of their parts."""
    return {
        name: _leave_out(value, without, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if f"{prefix}{name}" not in without
    }


def _override(settings: S, recipe: Settings, is_chosen: bool = True) -> S:
    """Settings with a recipe's, except those that were chosen; a network that was chosen stays of its kind.

    Args:
        is_chosen: whether the settings were chosen at all, and are not a default.
    """
    chosen = settings.model_fields_set if is_chosen else set()
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    for name, value in recipe.items():
        own = values[name]
        if not isinstance(value, Mapping):
            values[name] = own if name in chosen else value
        elif value.get("kind", getattr(own, "kind", None)) == getattr(own, "kind", None):
            values[name] = _override(own, value, name in chosen)
        elif name not in chosen:
            values[name] = dict(value)
    return type(settings).model_validate(values)
