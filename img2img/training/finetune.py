"""Fine-tuning: what a run begins with that was trained before, and what of it is trained, how fast, and from when on."""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from img2img.config import RunConfig, read_config
from img2img.core.errors import UsageError, list_some
from img2img.interop import is_weights, load_discriminator, load_translator, read_network
from img2img.interop.onnx import needs_weights
from img2img.methods.base import Method, MethodConfig, Phase
from img2img.models import Translator, has_both_directions, read_kind
from img2img.networks import DiscriminatorConfig, GeneratorConfig
from img2img.networks.weights import add_adapters, collect_plain_state, load_plain_state
from img2img.training.checkpoint import find_checkpoints
from img2img.training.run_folder import CHECKPOINTS, CONFIG

Architecture = GeneratorConfig | DiscriminatorConfig

NEAR_ONE = 0.01
FILLED_IN = {"in_channels", "out_channels", "latent", "latent_size", "steps"}
"""Settings of architectures that are left to the data, or to the method."""


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained; all of it at once, unless a run begins with a trained model. By network and parameter."""

    frozen: Mapping[str, Set[str]] = field(default_factory=dict)
    """What isn't trained."""
    factors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of learning rates, where they aren't 1."""
    warmup: int = 0
    """Updates for which only the discriminators are trained."""

    def freeze(self, networks: Mapping[str, nn.Module]) -> None:
        """Frozen parameters take no gradients, and norms and spectral norms of such keep their statistics."""
        for name, frozen in self.frozen.items():
            self.unfreeze(name, networks[name])
            for layer, module in networks[name].named_modules():
                within = layer if isinstance(module, nn.BatchNorm2d) and module.affine else layer.rpartition(".")[0]
                if isinstance(module, nn.BatchNorm2d) and _is_frozen(frozen, networks[name], within):
                    module.eval()
                elif parametrize.is_parametrized(module) and f"{layer}.parametrizations.weight.original" in frozen:
                    module.get_submodule("parametrizations.weight").eval()  # the power iteration of spectral norm

    def unfreeze(self, name: str, network: nn.Module) -> None:
        """Lets a network's parameters take gradients, except those that are frozen for good."""
        frozen = self.frozen.get(name, ())
        for own, parameter in network.named_parameters():
            parameter.requires_grad_(own not in frozen)

    def group_parameters(self, phase: Phase, networks: Mapping[str, nn.Module]) -> list[dict[str, Any]]:
        """What a phase trains, as an optimizer takes it: a group for each factor of the learning rate."""
        found: dict[float, list[nn.Parameter]] = {}
        for name in phase.trains:
            frozen, factors = self.frozen.get(name, ()), self.factors.get(name, {})
            for own, parameter in networks[name].named_parameters():
                if own not in frozen:
                    found.setdefault(factors.get(own, 1.0), []).append(parameter)
        return [{"params": parameters, "factor": factor} for factor, parameters in found.items()]


def _is_frozen(frozen: Set[str], network: nn.Module, module: str) -> bool:
    """Whether all parameters of a module, of which there must be some, are frozen."""
    names = [f"{module}.{name}" for name, _ in network.get_submodule(module).named_parameters()]
    return bool(names) and all(name in frozen for name in names)


@dataclass
class Start:
    """What a run begins with."""

    config: RunConfig
    """Of the run, with the architectures of what it begins with."""
    translators: dict[str, Translator] = field(default_factory=dict)
    """By direction."""
    discriminators: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Their weights by the names that they have in a method."""
    fresh: tuple[str, ...] = ()
    """Weights of generators that didn't fit."""
    notes: list[str] = field(default_factory=list)
    """What was taken over, for a person."""


def load_start(config: RunConfig) -> Start | None:
    """Reads what a run, whose config is resolved, shall begin with, and takes over its architecture; None if nothing was asked for.

    Raises:
        UsageError: if settings exclude each other, something can't be read, or it is of another kind than the method trains.
    """
    refuse_combinations(config)
    tuning, start = config.finetune, Start(config)
    if not tuning.init and not tuning.init_discriminator:
        return None
    if tuning.init:
        start.translators = _load_translators(config)
        start.config = _take_architecture(config, start)
    if tuning.init_discriminator:
        discriminator, start.discriminators = _load_discriminators(tuning.init_discriminator, config)
        start.config = _with_networks(start.config, {"discriminator": discriminator}, "--init-discriminator")
    return start


def _take_architecture(config: RunConfig, start: Start) -> RunConfig:
    tuning, method = config.finetune, config.method
    for each in start.translators.values():
        needs_weights(each)
    if len(start.translators) < len(method.directions) and (tuning.lora or tuning.freeze):
        raise UsageError("--lora and --freeze need a model for both generators: --init A_TO_B B_TO_A.")
    architectures = [_leave_open(_without_norm(each, start.notes)) for each in start.translators.values()]
    if any(each.config.value_range != (-1, 1) for each in start.translators.values()):
        raise UsageError("--init: training is on values from -1 to 1, and that model's are from 0 to 1.")
    _compare_ranges(config, start)
    styled = any(each.draws_styles and not each.config.classes for each in start.translators.values())
    if styled and not hasattr(method, "image_encoder"):
        raise UsageError(f"--init: that model has styles, which {method.name} doesn't train; use bicyclegan.")
    if any(each != architectures[0] for each in architectures):
        raise UsageError("--init: both models must be of one architecture.")
    found = _with_networks(config, {"generator": architectures[0]}, "--init")
    found = found.model_copy(update={"method": found.method.without_stages()})
    if tuning.warmup_discriminator:
        start.notes.append(f"the first {tuning.warmup_discriminator} updates train the discriminator alone.")
    if tuning.save_adapter:  # of a run, another may be the best later
        home = start.translators[""].home
        assert home is not None
        found = found.model_copy(update={"finetune": tuning.model_copy(update={"init": (home,)})})
    return found


def _compare_ranges(config: RunConfig, start: Start) -> None:
    """Refuses to read as colours what a model takes as measurements; notes ranges that are others."""
    for direction, each in start.translators.items():
        before = each.config.in_range, each.config.out_range
        now = config.data.ranges if direction != "BtoA" else config.data.ranges[::-1]
        for name, known, given in zip(("takes", "makes"), before, now, strict=True):
            if known and not given:
                raise UsageError(
                    f"--init: that model {name} measurements from {known[0]:g} to {known[1]:g}: say with --data.range, or --data.source-range and --data.target-range, what these files hold."
                )
        if before not in (now, (None, None)):
            start.notes.append("the ranges of values are not those that the model of --init was trained with")


def refuse_combinations(config: RunConfig) -> None:
    """Refuses settings that are about a model that isn't given, or exclude each other."""
    tuning, given, method = config.finetune, bool(config.finetune.init), config.method
    if (given or tuning.init_discriminator) and method.model != "translator":
        raise UsageError(f"--init is for translators, not for {method.name}, which makes images from noise.")
    for name in ("freeze", "lora", "save_adapter", "warmup_discriminator"):
        if getattr(tuning, name) and not given:
            raise UsageError(f"--{name.replace('_', '-')} needs --init MODEL; add that, or leave it out.")
    if tuning.freeze_discriminator and not tuning.init_discriminator:
        raise UsageError("--freeze-discriminator keeps what a discriminator has learned; add --init-discriminator.")
    if tuning.warmup_discriminator and tuning.init_discriminator:
        raise UsageError("--warmup-discriminator is for a fresh discriminator; leave it or --init-discriminator out.")
    if tuning.lora_scale != 1 and not tuning.lora:
        raise UsageError("--lora-scale is about adapters: add --lora 4, or leave it out.")
    if tuning.save_adapter and not tuning.lora:
        raise UsageError("--save-adapter needs the rank of what is saved: add --lora 4.")
    if tuning.save_adapter and (len(method.directions) > 1 or is_weights(tuning.init[0])):
        raise UsageError(
            "--save-adapter saves the change of one translator's folder: leave it out for methods that train two generators, "
            "and use img2img import first for another project's file."
        )
    if method.begins_with_run and given:
        raise UsageError("--init and --coarse-run exclude each other.")
    if tuning.init_discriminator and method.resolve_discriminator() is None:
        raise UsageError(f"--init-discriminator: {method.name} has no discriminator; leave it out.")
    try:
        re.compile(tuning.freeze or "")
    except re.error as error:
        raise UsageError(
            f"--freeze {tuning.freeze}: that is no regular expression ({error}); give one such as 'stem|down'."
        ) from None


def _load_translators(config: RunConfig) -> dict[str, Translator]:
    """What the generators begin with, by direction."""
    given, directions = config.finetune.init, config.method.directions
    if len(given) > len(directions):
        raise UsageError("--init takes one model, and for cyclegan one or two: A to B and B to A.")
    if len(directions) == 1:
        direction = config.data.direction if has_both_directions(given[0]) else None
        return {directions[0]: load_translator(given[0], direction=direction)}
    if len(given) == 1 and has_both_directions(given[0]):
        return {each: load_translator(given[0], direction=each) for each in ("AtoB", "BtoA")}
    return {direction: load_translator(path) for direction, path in zip(directions, given, strict=False)}


def _without_norm(translator: Translator, notes: list[str]) -> GeneratorConfig:
    """Its architecture; without spectral norm if that would change its weights, whose largest singular values then aren't 1."""
    config = translator.config.generator
    if config.has_spectral_norm:
        kinds = nn.Conv2d | nn.Linear
        layers = [
            layer
            for name, layer in translator.generator.named_modules()
            if isinstance(layer, kinds) and config.has_spectral_norm_at(name)
        ]
        norms = [float(torch.linalg.matrix_norm(each.weight.flatten(1), 2)) for each in layers]
        changed = sum(abs(norm - 1) > NEAR_ONE for norm in norms)
        if changed:
            notes.append(
                f"the generator is trained without spectral norm, which would change {changed} of {len(layers)} layers."
            )
            return config.model_copy(update={"spectral_norm": "none"})
    return config


def _leave_open(generator: GeneratorConfig) -> GeneratorConfig:
    """An architecture whose channels are left to the data."""
    return generator.model_copy(update=dict.fromkeys(FILLED_IN & type(generator).model_fields.keys()))


def _with_networks(config: RunConfig, found: Mapping[str, Architecture], option: str) -> RunConfig:
    """A config with architectures that were found, if the method takes them and the user asked for no others."""
    method = config.method
    for name, architecture in found.items():
        if not _accepts(type(method), name, architecture):
            raise UsageError(
                f"{option}: {method.name} doesn't train a {name} of kind {architecture.kind}; another method trained it."
            )
        if _contradicts(getattr(method, name), type(method).model_fields[name].default, architecture):
            raise UsageError(f"--{name}.…: the architecture is that of {option}'s {name}; leave these options out.")
    return config.model_copy(update={"method": method.model_copy(update=found)})


def _contradicts(asked: Architecture, default: Architecture, architecture: Architecture) -> bool:
    """Whether the user chose another architecture than the one that was found."""
    usual = default if asked.kind == default.kind else type(asked).model_validate({})
    chosen = {name: value for name, value in asked if value != getattr(usual, name)}
    chosen |= {} if asked.kind == default.kind else {"kind": asked.kind}
    return any(getattr(architecture, name, None) != value for name, value in chosen.items() if value is not None)


def _accepts(method: type[MethodConfig], name: str, architecture: Architecture) -> bool:
    try:
        method.model_validate({"name": method.model_fields["name"].default, name: architecture.model_dump()})
    except ValueError:
        return False
    return True


def _load_discriminators(
    given: Sequence[Path], config: RunConfig
) -> tuple[Architecture, dict[str, Mapping[str, Tensor]]]:
    """The architecture and the weights of discriminators: of a run, or of one file or two."""
    names = config.method.discriminators
    if len(given) > len(names):
        raise UsageError(f"--init-discriminator takes {len(names)} at most for {config.method.name}.")
    if len(given) == 1 and (given[0] / CONFIG).is_file():
        return _load_from_run(given[0], names)
    found = [
        load_discriminator(path) if path.is_dir() and read_kind(path) == "discriminator" else read_network(path, ("discriminator",))
        for path in given
    ]  # fmt: skip
    if any(each.guess.config != found[0].guess.config for each in found):
        raise UsageError("--init-discriminator: both must be of one architecture.")
    states: dict[str, Mapping[str, Tensor]] = {
        name: each.network.state_dict() for name, each in zip(names, found, strict=False)
    }
    return found[0].guess.config, states


def _load_from_run(run: Path, names: Sequence[str]) -> tuple[Architecture, dict[str, Mapping[str, Tensor]]]:
    method, saved = read_config(run / CONFIG).method, find_checkpoints(run / CHECKPOINTS)
    if not saved:
        raise UsageError(f"--init-discriminator {run}: this run has saved no checkpoint.")
    files = {name: saved[-1] / f"{name}.safetensors" for name in names}
    missing = [name for name, file in files.items() if not file.is_file()]
    if missing:
        raise UsageError(f"--init-discriminator {run}: a run of {method.name} has no {missing[0]}.")
    discriminator = method.resolve_discriminator()
    if discriminator is None:
        raise UsageError(f"--init-discriminator {run}: the discriminator of {method.name} sees no translations.")
    try:
        states: dict[str, Mapping[str, Tensor]] = {name: load_file(file) for name, file in files.items()}
    except Exception as error:
        raise UsageError(f"--init-discriminator {run}: {saved[-1]} can't be read ({error}).") from None
    return discriminator, states


def take_over(method: Method, start: Start) -> None:
    """Fills a method's networks with what was trained before; what doesn't fit keeps its fresh weights, and is noted.

    Raises:
        UsageError: if nothing fits.
    """
    for direction, translator in start.translators.items():
        name = method.generators[direction]
        start.fresh += _fill(name, method.networks[name], translator.generator.state_dict(), start.notes)
        if translator.encoder is not None and direction in method.encoders:
            encoder = method.encoders[direction][0]
            _fill(encoder, method.networks[encoder], translator.encoder.state_dict(), start.notes)
    for name, state in start.discriminators.items():
        _fill(name, method.networks[name], state, start.notes, plain=False)
    begun = {method.generators[direction] for direction in start.translators}
    start.translators.clear()  # they aren't needed while the run goes on
    start.discriminators.clear()
    left = [name for name in method.generators.values() if begun and name not in begun]
    if left:
        start.notes.append(f"{left[0]} starts fresh; --init takes a second model for it.")


def _fill(
    name: str, network: nn.Module, state: Mapping[str, Tensor], notes: list[str], plain: bool = True
) -> tuple[str, ...]:
    """Puts in what fits, and gives the names of the rest; `plain` weights are those without spectral norm."""
    own = collect_plain_state(network) if plain else network.state_dict()
    fitting = {key: tensor for key, tensor in state.items() if key in own and own[key].shape == tensor.shape}
    fresh = [key for key in own if key not in fitting]
    if not any(tensor.ndim > 1 for tensor in fitting.values()):
        raise UsageError(f"none of the trained weights fits the {name}.")
    if plain:
        load_plain_state(network, fitting)
    else:
        network.load_state_dict({**own, **fitting})
    of_other = f"; of other sizes, and so initialised: {list_some(fresh, 6)}" if fresh else ""
    notes.append(f"{name} begins with {len(fitting)} of {len(own)} trained tensors{of_other}.")
    return tuple(fresh)


def plan_training(method: Method, config: RunConfig) -> TrainingPlan:
    """Gives generators their adapters, and says what is frozen and how fast what learns.

    Raises:
        UsageError: if nothing is left to be trained.
    """
    tuning = config.finetune
    frozen: dict[str, set[str]] = {}
    factors: dict[str, dict[str, float]] = {}
    for name in method.generators.values():
        network = method.networks[name]
        held = {own for own in _match_names(network, tuning.freeze) if _plain_name(own) not in tuning.fresh}
        if tuning.lora:
            without = {_plain_name(own) for own in held} | set(tuning.fresh)
            held |= add_adapters(network, tuning.lora, tuning.lora_scale, without)
        if all(own in held for own, _ in network.named_parameters()):
            raise UsageError(f"--freeze {tuning.freeze} leaves nothing to train.")
        if held:
            frozen[name] = held
        if tuning.layer_lr < 1:
            factors[name] = layer_factors(network, tuning.layer_lr)
    for name in config.method.discriminators if tuning.freeze_discriminator else ():
        frozen[name] = first_layers(method.networks[name], tuning.freeze_discriminator)
    return TrainingPlan(frozen, factors, tuning.warmup_discriminator)


def _match_names(network: nn.Module, freeze: str | None) -> set[str]:
    """The parameters whose plain names begin with a regular expression."""
    names = [own for own, _ in network.named_parameters()]
    held = {own for own in names if freeze and re.match(freeze, _plain_name(own))}
    if freeze and not held:
        parts = dict.fromkeys(own.partition(".")[0] for own in names)
        raise UsageError(f"--freeze {freeze}: no weight's name begins so; they begin with {', '.join(parts)}.")
    return held


def _plain_name(name: str) -> str:
    """A parameter's name without adapters and spectral norm."""
    return name.replace("parametrizations.weight.original", "weight")


def layer_factors(network: nn.Module, share: float) -> dict[str, float]:
    """For each parameter `share` to the power of how many convolutions or linear layers come after its own."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    layer, numbers = -1, dict[str, int]()
    for name, module in network.named_modules():
        layer += isinstance(module, kinds)
        own = [f"{name}.{each}" if name else each for each, _ in module.named_parameters(recurse=False)]
        numbers |= dict.fromkeys(own, max(layer, 0))
    return {name: share ** (layer - number) for name, number in numbers.items()}


def first_layers(discriminator: nn.Module, count: int) -> set[str]:
    """The names of parameters in the first layers; of several scales in those of each.

    Raises:
        UsageError: if there are no more.
    """
    network: Any = discriminator
    layers: list[tuple[str, ...]] = network.layer_names()
    if count >= len(layers):
        raise UsageError(f"--freeze-discriminator {count}: there are {len(layers)} layers; leave at least one.")
    held = tuple(prefix for layer in layers[:count] for prefix in layer)
    return {name for name, _ in discriminator.named_parameters() if name.startswith(held)}
