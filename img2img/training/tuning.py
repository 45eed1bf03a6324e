"""Fine-tuning: a run that begins with what was trained before."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from img2img.config import RunConfig, read_config
from img2img.errors import UsageError, listed
from img2img.interop import is_weights, load_discriminator, load_translator, read_network
from img2img.interop.onnx import needs_weights
from img2img.methods.base import Method, Role
from img2img.networks import SPADEConfig
from img2img.networks.adapters import with_adapters
from img2img.networks.blocks import load_plain, plain_state
from img2img.networks.patchgan import MultiScale
from img2img.training.plan import Plan
from img2img.training.setup import CHECKPOINTS, CONFIG
from img2img.training.state import checkpoints
from img2img.translator import Translator, has_both_directions, kind_of

NEAR_ONE = 0.01
DISCRIMINATORS = ("discriminator", "discriminator_A", "discriminator_B")


@dataclass
class Start:
    """What was trained before."""

    config: RunConfig[Any]
    """Of the run, with the architectures of what it begins with."""
    translators: dict[Role, Translator] = field(default_factory=dict)
    discriminators: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Their weights by the names that they have in a method."""
    fresh: tuple[str, ...] = ()
    """Weights of generators that didn't fit."""
    notes: list[str] = field(default_factory=list)
    """What was taken over, for a person."""


def started(config: RunConfig[Any]) -> Start:
    """Reads what a run shall begin with, and takes over its architecture.

    Args:
        config: resolved.

    Raises:
        UsageError: if something can't be read, or is of another kind than the method trains.
    """
    tuning, start = config.tuning, Start(config)
    if tuning.init:
        start.translators = _translators(config)
        for each in start.translators.values():
            needs_weights(each)
        if config.method.name == "cyclegan" and len(start.translators) == 1 and (tuning.lora or tuning.freeze):
            raise UsageError("--lora and --freeze need a model for both generators: --init A_TO_B B_TO_A.")
        architectures = [_open(_normed(each, start.notes)) for each in start.translators.values()]
        if any(each.config.value_range != (-1, 1) for each in start.translators.values()):
            raise UsageError("--init: training is on values from -1 to 1, and that model's are from 0 to 1.")
        if any(each != architectures[0] for each in architectures):
            raise UsageError("--init: both models must be of one architecture.")
        found: dict[str, Any] = {"generator": architectures[0]}
        if "coarse_share" in type(config.method).model_fields:
            found["coarse_share"] = 0.0  # it knows the coarse already
        start.config = _with_method(config, found, "--init")
        if tuning.warmup_discriminator:
            start.notes.append(
                f"of the updates, the first {tuning.warmup_discriminator} train the discriminator alone."
            )
        if tuning.lora_apart:  # of a run, another may be the best by and by
            home = start.translators[""].home
            assert home is not None
            start.config = start.config.model_copy(update={"tuning": tuning.model_copy(update={"init": (home,)})})
    if tuning.init_discriminator:
        discriminator, start.discriminators = _discriminators(tuning.init_discriminator, config)
        start.config = _with_method(start.config, {"discriminator": discriminator}, "--init-discriminator")
    return start


def refuse_tuning(config: RunConfig[Any]) -> None:
    """Settings that are about a model that isn't given, or exclude each other.

    Raises:
        UsageError: if there are such.
    """
    tuning, given = config.tuning, bool(config.tuning.init)
    if (given or tuning.init_discriminator) and config.method.from_noise:
        raise UsageError(f"--init is for translators, not for {config.method.name}, which makes images from noise.")
    for name in ("freeze", "lora", "lora_apart", "warmup_discriminator"):
        if getattr(tuning, name) and not given:
            raise UsageError(
                f"--{name.replace('_', '-')} belongs to --init MODEL, which it is about; add that, or leave it out."
            )
    if tuning.freeze_discriminator and not tuning.init_discriminator:
        raise UsageError("--freeze-discriminator keeps what a discriminator has learned; add --init-discriminator.")
    if tuning.warmup_discriminator and tuning.init_discriminator:
        raise UsageError("--warmup-discriminator is for a fresh discriminator; leave it or --init-discriminator out.")
    if tuning.lora_scale != 1 and not tuning.lora:
        raise UsageError("--lora-scale is about adapters: add --lora 4, or leave it out.")
    if tuning.lora_apart and not tuning.lora:
        raise UsageError("--lora-apart needs the rank of what is saved: add --lora 4.")
    if tuning.lora_apart and (config.method.name == "cyclegan" or is_weights(tuning.init[0])):
        raise UsageError(
            "--lora-apart saves what changed of one translator's folder; use img2img import first for another project's file, and "
            "leave it out for cyclegan."
        )
    if getattr(config.method, "coarse_run", None) and given:
        raise UsageError("--init and --coarse-run exclude each other.")
    try:
        re.compile(tuning.freeze or "")
    except re.error as error:
        raise UsageError(
            f"--freeze {tuning.freeze}: that is no regular expression ({error}); such as 'stem|down'."
        ) from None


def _translators(config: RunConfig[Any]) -> dict[Role, Translator]:
    """What the generators begin with."""
    given = config.tuning.init
    if len(given) > (2 if config.method.name == "cyclegan" else 1):
        raise UsageError("--init takes one model, and for cyclegan one or two: A to B and B to A.")
    if config.method.name != "cyclegan":
        direction = config.data.direction if has_both_directions(given[0]) else None
        return {"": load_translator(given[0], direction=direction)}
    if len(given) == 2:
        return {"A2B": load_translator(given[0]), "B2A": load_translator(given[1])}
    if not has_both_directions(given[0]):
        return {"A2B": load_translator(given[0])}
    return {"A2B": load_translator(given[0], direction="AtoB"), "B2A": load_translator(given[0], direction="BtoA")}


def _normed(translator: Translator, notes: list[str]) -> Any:
    """Its architecture; without spectral norm, if that would change its weights: they have other largest singular values than 1."""
    config = translator.config.generator
    if isinstance(config, SPADEConfig) and config.spectral_norm:
        kinds = nn.Conv2d | nn.Linear
        layers = [(name, each) for name, each in translator.generator.named_modules() if isinstance(each, kinds)]
        far = [
            name
            for name, each in layers
            if abs(float(torch.linalg.matrix_norm(each.weight.flatten(1), 2)) - 1) > NEAR_ONE
        ]
        if far:
            notes.append(
                f"the generator is trained without spectral norm, which would change {len(far)} of its {len(layers)} layers."
            )
            return config.model_copy(update={"spectral_norm": False})
    return config


def _open(generator: Any) -> Any:
    """An architecture whose channels are left to the data."""
    left = {"in_channels", "out_channels", "latent", "latent_size"} & type(generator).model_fields.keys()
    return generator.model_copy(update=dict.fromkeys(left))


def _with_method(config: RunConfig[Any], found: dict[str, Any], option: str) -> RunConfig[Any]:
    """A config with architectures that were found, if the method takes them and nobody asked for others."""
    method = config.method
    for name, architecture in found.items():
        if name == "coarse_share":
            continue
        if not _takes(type(method), name, architecture):
            raise UsageError(
                f"{option}: {method.name} doesn't train a {name} of kind {architecture.kind}; another method trained it."
            )
        if _contradicts(getattr(method, name), type(method).model_fields[name].default, architecture):
            raise UsageError(f"--{name}.…: the architecture is that of {option}'s {name}; leave these options out.")
    return config.model_copy(update={"method": method.model_copy(update=found)})


def _contradicts(asked: Any, default: Any, architecture: Any) -> bool:
    """Whether somebody chose another architecture than the one that is taken."""
    usual = default if asked.kind == default.kind else type(asked)()
    chosen = {name: value for name, value in asked if value != getattr(usual, name)} | (
        {} if asked.kind == default.kind else {"kind": asked.kind}
    )
    return any(getattr(architecture, name, None) != value for name, value in chosen.items() if value is not None)


def _takes(method: Any, name: str, architecture: Any) -> bool:
    try:
        method.model_validate({"name": method.model_fields["name"].default, name: architecture.model_dump()})
    except ValueError:
        return False
    return True


def _discriminators(given: Sequence[Path], config: RunConfig[Any]) -> tuple[Any, dict[str, Mapping[str, Tensor]]]:
    """The architecture and the weights of discriminators: of a run, or of one file or two."""
    names = DISCRIMINATORS[1:] if config.method.name == "cyclegan" else DISCRIMINATORS[:1]
    if len(given) > len(names):
        raise UsageError(f"--init-discriminator takes {len(names)} at most for {config.method.name}.")
    if len(given) == 1 and (given[0] / CONFIG).is_file():
        return _of_run(given[0], names)
    found = [
        load_discriminator(path) if path.is_dir() and kind_of(path) == "discriminator" else read_network(path, ("discriminator",))
        for path in given
    ]  # fmt: skip
    if any(each.guess.config != found[0].guess.config for each in found):
        raise UsageError("--init-discriminator: both must be of one architecture.")
    states: dict[str, Mapping[str, Tensor]] = {
        name: each.network.state_dict() for name, each in zip(names, found, strict=False)
    }
    return found[0].guess.config, states


def _of_run(run: Path, names: Sequence[str]) -> tuple[Any, dict[str, Mapping[str, Tensor]]]:
    method, saved = read_config(run / CONFIG).method, checkpoints(run / CHECKPOINTS)
    if not saved:
        raise UsageError(f"--init-discriminator {run}: this run has saved no checkpoint.")
    files = {name: saved[-1] / f"{name}.safetensors" for name in names}
    missing = [name for name, file in files.items() if not file.is_file()]
    if missing:
        raise UsageError(f"--init-discriminator {run}: a run of {method.name} has no {missing[0]}.")
    norm = method.discriminator.norm or ("batch" if method.name == "pix2pix" else "instance")
    try:
        states: dict[str, Mapping[str, Tensor]] = {name: load_file(file) for name, file in files.items()}
    except Exception as error:
        raise UsageError(f"--init-discriminator {run}: {saved[-1]} can't be read ({error}).") from None
    return method.discriminator.model_copy(update={"norm": norm}), states


def take_over(method: Method, start: Start) -> None:
    """Fills a method's networks with what was trained before; what doesn't fit stays as it was drawn, and is noted.

    Raises:
        UsageError: if nothing fits.
    """
    for role, translator in start.translators.items():
        name = method.generators[role]
        start.fresh += _filled(name, method.networks[name], translator.generator.state_dict(), start.notes)
        if translator.encoder is not None and role in method.encoders:
            reader = method.encoders[role][0]
            _filled(reader, method.networks[reader], translator.encoder.state_dict(), start.notes)
    for name, state in start.discriminators.items():
        _filled(name, method.networks[name], state, start.notes)
    begun = {method.generators[role] for role in start.translators}
    start.translators.clear()  # they aren't needed while the run goes on
    start.discriminators.clear()
    left = [name for name in method.generators.values() if begun and name not in begun]
    if left:
        start.notes.append(f"{left[0]} starts fresh; --init takes a second model for it.")


def _filled(name: str, network: nn.Module, state: Mapping[str, Tensor], notes: list[str]) -> tuple[str, ...]:
    """Puts in what fits, and gives the names of the rest."""
    own = network.state_dict() if name in DISCRIMINATORS else plain_state(network)
    fitting = {key: tensor for key, tensor in state.items() if key in own and own[key].shape == tensor.shape}
    fresh = [key for key in own if key not in fitting]
    if not any(tensor.ndim > 1 for tensor in fitting.values()):
        raise UsageError(f"none of the trained weights fits the {name}.")
    if name in DISCRIMINATORS:
        network.load_state_dict({**own, **fitting})
    else:
        load_plain(network, fitting)
    of_other = f"; initialised, for they are of other sizes: {listed(fresh, 6)}" if fresh else ""
    notes.append(f"{name} begins with {len(fitting)} of {len(own)} trained tensors{of_other}.")
    return tuple(fresh)


def planned(method: Method, config: RunConfig[Any]) -> Plan:
    """Gives generators their adapters, and says what is frozen and how fast what learns.

    Raises:
        UsageError: if nothing is left to be trained.
    """
    tuning = config.tuning
    frozen: dict[str, set[str]] = {}
    factors: dict[str, dict[str, float]] = {}
    for name in method.generators.values():
        network = method.networks[name]
        held = {own for own in _held(network, tuning.freeze) if _plain(own) not in tuning.fresh}
        if tuning.lora:
            without = {_plain(own) for own in held} | set(tuning.fresh)
            held |= with_adapters(network, tuning.lora, tuning.lora_scale, without)
        if all(own in held for own, _ in network.named_parameters()):
            raise UsageError(f"--freeze {tuning.freeze} leaves nothing to train.")
        if held:
            frozen[name] = held
        if tuning.layer_lr < 1:
            factors[name] = layer_factors(network, tuning.layer_lr)
    for name in method.networks:
        if tuning.freeze_discriminator and name in DISCRIMINATORS:
            frozen[name] = first_layers(method.networks[name], tuning.freeze_discriminator)
    return Plan(frozen, factors, tuning.warmup_discriminator)


def _held(network: nn.Module, freeze: str | None) -> set[str]:
    """The parameters whose plain names begin with a regular expression."""
    names = [own for own, _ in network.named_parameters()]
    held = {own for own in names if freeze and re.match(freeze, _plain(own))}
    if freeze and not held:
        parts = dict.fromkeys(own.partition(".")[0] for own in names)
        raise UsageError(f"--freeze {freeze}: no weight's name begins so; they begin with {', '.join(parts)}.")
    return held


def _plain(name: str) -> str:
    """A parameter's name without adapters and spectral norm."""
    return name.replace("parametrizations.weight.original", "weight")


def layer_factors(network: nn.Module, share: float) -> dict[str, float]:
    """Of each parameter `share` to the power of how many convolutions or linear layers come after its own."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    layer, numbers = -1, dict[str, int]()
    for name, module in network.named_modules():
        layer += isinstance(module, kinds)
        own = [f"{name}.{each}" if name else each for each, _ in module.named_parameters(recurse=False)]
        numbers |= dict.fromkeys(own, max(layer, 0))
    return {name: share ** (layer - number) for name, number in numbers.items()}


def first_layers(discriminator: nn.Module, count: int) -> set[str]:
    """The names of parameters in the first layers, of several scales of each.

    Raises:
        UsageError: if there are no more.
    """
    parts: list[tuple[str, Any]] = [("", discriminator)]
    if isinstance(discriminator, MultiScale):
        parts = [(f"scales.{number}.", part) for number, part in enumerate(discriminator.scales)]
    found: set[str] = set()
    for prefix, part in parts:
        each = list(part.blocks.named_children())  # of a pixel discriminator one convolution and its norm
        blocks = ["blocks"] if isinstance(each[0][1], nn.Conv2d) else [f"blocks.{name}" for name, _ in each]
        layers = ["stem", *blocks, "head"]
        if count >= len(layers):
            raise UsageError(f"--freeze-discriminator {count}: there are {len(layers)} layers; leave at least one.")
        held = tuple(f"{prefix}{layer}." for layer in layers[:count])
        found |= {name for name, _ in discriminator.named_parameters() if name.startswith(held)}
    return found
