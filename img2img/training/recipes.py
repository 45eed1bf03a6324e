"""Recipes: lists of settings for a method and an amount of data, which whatever a user chose overrides."""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from img2img.config import RunConfig
from img2img.core.errors import UsageError
from img2img.core.settings import Strict

FEW = 20_000  # training images below which the recipe for little data is chosen
Settings = Mapping[str, Any]
S = TypeVar("S", bound=Strict)


def choose_recipe(config: RunConfig, images: int, channels: int) -> RunConfig:
    """The config with a recipe's settings, which then are as if a user had chosen them.

    Args:
        config: its recipe may be auto: small for few images and a run from scratch, if the method has it, else paper.
        images: that are trained on.
        channels: of the images that are made.

    Raises:
        UsageError: if the method doesn't have the recipe.
    """
    name, recipes = config.recipe, config.method.recipes
    begun = config.finetune.init or config.finetune.init_discriminator
    if name == "auto":
        name = "small" if images < FEW and not begun and "small" in recipes else "paper"
    if name == "small" and "small" not in recipes:
        raise UsageError(f"--recipe small: {config.method.name} has no such recipe; leave the option out.")
    named = config.model_copy(update={"recipe": name})
    kept = {"generator"} if config.finetune.init else set()  # what a run begins with stays what it is
    kept |= {"discriminator"} if config.finetune.init_discriminator else set()
    applied = apply_recipe(named, kept)
    discriminator = applied.method.resolve_discriminator()
    if discriminator is None or discriminator.fits(channels, config.data.shorter_side):
        return applied
    return apply_recipe(named, kept | {"discriminator"})


def apply_recipe(config: RunConfig, without: Collection[str] = ()) -> RunConfig:
    """The config with the settings of the recipe that it names, except those that were chosen.

    Args:
        without: parts of the method's settings that are left as they are.
    """
    recipe = config.method.recipes.get(config.recipe)
    if not recipe:
        return config
    method = {name: value for name, value in recipe.get("method", {}).items() if name not in without}
    return _override(config, {**recipe, "method": method})


def describe_recipe(config: RunConfig) -> str:
    """A recipe and its settings, for a person; nothing where a method has the paper's only."""
    if not config.method.recipes:
        return ""
    if config.recipe == "paper":
        small = f"; --recipe small is made for fewer than {FEW:,} images" if "small" in config.method.recipes else ""
        return f"recipe paper: the settings of the paper{small}"
    applied = set(list_settings(config.method.recipes[config.recipe])) & set(list_settings(config.model_dump()))
    settings = " ".join(f"--{name} {value}" for name, value in sorted(applied))
    return f"recipe {config.recipe}, made for fewer than {FEW:,} images: {settings}; --recipe paper takes the paper's settings"


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
