"""`img2img compress`: a large translator's translations of photos, and a small one that learns to make them."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from accelerate import Accelerator
from rich.console import Console
from rich.table import Table

from img2img.compression.comparison import MOST, Comparison, compare_with_teacher
from img2img.compression.student import Cost, choose_student, measure_cost, refuse_teacher
from img2img.config import RunConfig, resolve_config, write_config
from img2img.core.device import choose_precision, tune_allocator
from img2img.core.downloads import announce
from img2img.core.errors import UsageError, UserError
from img2img.core.files import write_whole
from img2img.core.processes import build_accelerator, join_processes, run_on_main
from img2img.data.base import DataConfig, Direction, choose_sample
from img2img.data.classes import Classes, write_classes
from img2img.data.distilled import DistilledData, SourceFolder, choose_real, find_photos
from img2img.data.distilled_labels import DistilledLabels, find_label_maps
from img2img.data.layouts import Split, check_folder
from img2img.data.listing import list_images
from img2img.images import ImageError
from img2img.images.formats import VOLUMES, find_suffix
from img2img.images.labels import read_indices
from img2img.inference.convert import convert
from img2img.interop import load_translator
from img2img.methods.distill import DistillConfig, TeacherConfig
from img2img.metrics.paired import finite
from img2img.models import Translator, TranslatorConfig, has_both_directions
from img2img.models.styles import parse_style
from img2img.networks import build_generator
from img2img.training.run_folder import CONFIG, claim_folder, load_run_config
from img2img.training.train import train

TEACHER = "teacher"  # the folder of its translations, which is there when they are complete
UNFINISHED = "teacher-unfinished"
CLASSES = "classes.yaml"  # of a teacher that translates label maps
REPORT = "compression.json"
STEPS = 5000
SOME = 20  # files, one of which at least must be a label map
ACCEPT = 0.05  # perceptual distance
GOOD = 30.0  # dB of PSNR to the teacher
HELD_OUT = 0.1

Run = RunConfig[DistillConfig]


@dataclass(frozen=True)
class Compression:
    """What came of it."""

    teacher: Cost
    student: Cost
    comparison: Comparison
    accepted: bool
    """Whether the student is near enough to the teacher."""

    def write(self, path: Path) -> None:
        """As JSON."""
        values = asdict(self)
        for name in ("to_teacher", "copied"):
            if values["comparison"][name]:
                values["comparison"][name] = finite(values["comparison"][name])
        write_whole(path, (json.dumps(values, indent=1) + "\n").encode())


def compress(
    model: Path | str,
    data: Path | str,
    output: Path | str,
    *,
    macs: float = 0.05,
    direction: Direction | None = None,
    style: tuple[str, ...] = (),
    max_side: int | None = None,
    size: int | None = None,
    steps: int = STEPS,
    batch_size: int = 8,
    adversarial: float = 0.0,
    holdout: float = HELD_OUT,
    seed: int = 0,
    device: str = "auto",
    accept: float = ACCEPT,
    quiet: bool = False,
) -> Compression:
    """Trains a small translator to make what a large one makes.

    Args:
        model: the large translator, the teacher: its folder, that of a run, another project's file of weights, or a name on the Hub.
        data: photos, or label maps, of the kind that are to be converted: any folder, or a data set, whose other side then shows real images.
        output: the run's folder.
        macs: of the teacher's multiply-adds, the share that the student may take.
        direction: which translator of a run that learned both ways.
        style: of a translator between domains: the one that the student learns, as of ``img2img convert --style``.
        max_side: scale photos whose longer side has more pixels down to it.
        size: height and width of the training images, which are cut out of the photos; by default the teacher's.
        steps: optimizer updates.
        batch_size: images an update.
        adversarial: weight of an adversarial loss; 0 for none.
        holdout: without a val or test split: the share of the photos that the student is compared with the teacher on.
        seed: of all random numbers.
        device: where to run.
        accept: the largest perceptual distance to the teacher at which the student is called good; a PSNR of 30 dB will do, too.
        quiet: no progress bars and no sentences.

    Returns:
        What is saved and what it costs; it is also written to ``compression.json`` in the run's folder.

    Raises:
        UserError: in a sentence, if something can't work.
        KeyboardInterrupt: after Ctrl-C; `resume` goes on.
    """
    tune_allocator()
    _refuse_numbers(macs, size, max_side)
    source, folder = Path(data), Path(output).resolve()
    check_folder(source)  # before the teacher is loaded, which takes its time
    home = Path(model).absolute() if Path(model).exists() else model
    chosen = direction if has_both_directions(model) else None
    about = TeacherConfig(model=str(home), direction=chosen, style=style, max_side=max_side)
    accelerator = _build_accelerator(device)
    teacher = _load_teacher(about, accelerator)
    if direction not in (None, teacher.config.direction):
        raise UsageError(f"--direction {direction}: this translator is for {teacher.config.direction}.")
    side = size or min(teacher.config.size, teacher.config.width or teacher.config.size)
    generator = choose_student(teacher.config.generator, macs, teacher.in_channels, side)
    splits = _find_sources(teacher, source)
    for photos in splits.values():
        _choose_format(teacher, photos.source)  # says what can't work
    _refuse_holdout(splits, holdout)
    if folder.is_relative_to(source.resolve()):
        raise UsageError(f"--output {output} lies in {data}, and would then be converted with it.")
    method = DistillConfig(
        generator=generator.model_copy(update={"in_channels": None, "out_channels": None}),
        adversarial_weight=adversarial,
        teacher=about,
    )
    classes = teacher.config.classes
    if classes is None:
        sources = {"path": source, "direction": teacher.config.direction, "in_channels": teacher.in_channels}
        sources |= {"source_range": teacher.config.in_range, "axis": teacher.config.axis}
    else:
        sources = {
            "labels": source,
            "classes": folder / CLASSES,
            "ignore_label": classes.ignore,
            "use_instances": teacher.config.edges,
        }
    prepared = DataConfig(
        target=folder / TEACHER, target_range=teacher.config.out_range, size=side, holdout=holdout if splits.keys() == {"train"} else 0.0,
        out_channels=teacher.out_channels, **sources,
    )  # fmt: skip
    config = Run(
        method=method, data=prepared, output=folder, steps=steps, batch_size=batch_size, seed=seed, device=device
    )
    config = cast(Run, resolve_config(config))
    config.method.build(teacher.in_channels, teacher.out_channels, side)  # says what can't work
    with ExitStack() as claimed:
        run_on_main(accelerator, lambda: claimed.enter_context(claim_folder(folder, False)))
        run_on_main(accelerator, lambda: write_config(folder / CONFIG, config))  # from now on it can be resumed
    return _finish(config, teacher, accelerator, accept, quiet)


def _refuse_numbers(macs: float, size: int | None, max_side: int | None) -> None:
    if not 0 < macs < 1:
        raise UsageError(f"--macs {macs:g}: give the share of the teacher's multiply-adds, above 0 and below 1.")
    if size is not None and size < 8:
        raise UsageError(f"--size {size}: give at least 8 pixels.")
    if max_side is not None and max_side < 1:
        raise UsageError(f"--max-side {max_side}: give at least 1 pixel.")


def _find_sources(teacher: Translator, path: Path) -> dict[Split, SourceFolder]:
    """What the teacher translates, by splits.

    Raises:
        UsageError: if there is nothing, or these are no label maps of the teacher's classes, or instance maps are missing.
    """
    classes = teacher.config.classes
    if classes is None:
        return find_photos(path, teacher.config.direction)
    found = find_label_maps(path)
    if teacher.config.edges and "val" in found and found.get("test", found["val"]).instances is None:
        del found["test"]  # as training does it
    _refuse_no_labels(found["train"].source, classes)
    without = [maps.source for maps in found.values() if maps.instances is None]
    if teacher.config.edges and without:
        raise UsageError(
            f"the teacher takes label maps with instance maps, and there are none beside {without[0]}: "
            "the folders must be called alike, such as my_label and my_inst, or train_label and train_inst."
        )
    return found


def _refuse_no_labels(folder: Path, classes: Classes) -> None:
    """Refuses a folder of which none of some files is a label map of these classes."""
    reason = ""
    for file in list_images(folder).files[:SOME]:
        try:
            if not classes.beyond(read_indices(file)).any():
                return
            reason = f"{file} has labels that it doesn't know, which are {classes.allowed}"
        except ImageError as error:
            reason = str(error).rstrip(".")
    raise UsageError(f"the teacher takes label maps: {reason}.")


def _refuse_holdout(splits: Mapping[Split, SourceFolder], share: float) -> None:
    """Refuses to compare a student with its teacher on images that it has learned from."""
    if splits.keys() != {"train"}:
        return
    folder = splits["train"].source
    count = sum(1 for _ in list_images(folder).group())  # of one name there is one translation
    if not 0 < share < 1:
        raise UsageError(f"--holdout {share:g}: give the share of the images to compare on, above 0 and below 1.")
    if max(1, round(count * share)) >= count:
        raise UsageError(
            f"--holdout {share:g}: of the images in {folder} (there {'are' if count > 1 else 'is'} {count}), none would be left to learn from."
        )


def resume(
    output: Path | str, *, device: str | None = None, accept: float = ACCEPT, quiet: bool = False
) -> Compression:
    """Goes on with what was stopped, wherever that was; as `compress`."""
    tune_allocator()
    config: Any = load_run_config(Path(output))
    teacher = getattr(config.method, "teacher", None)
    if teacher is None:
        raise UsageError(
            f"--resume {output}: that is a run of {config.method.name}, which img2img train --resume continues."
        )
    folder = Path(output).resolve()  # which may have been moved
    moved = {"target": folder / TEACHER, **({"classes": folder / CLASSES} if config.data.labels else {})}
    data = config.data.model_copy(update=moved)
    config = cast(
        Run,
        resolve_config(config.model_copy(update={"output": folder, "data": data, "device": device or config.device})),
    )
    accelerator = _build_accelerator(config.device)
    with ExitStack() as claimed:
        run_on_main(accelerator, lambda: claimed.enter_context(claim_folder(folder, True)))
        run_on_main(accelerator, lambda: write_config(folder / CONFIG, config))
    return _finish(config, _load_teacher(teacher, accelerator), accelerator, accept, quiet)


def _load_teacher(about: TeacherConfig, accelerator: Accelerator) -> Translator:
    """The teacher, with its style, on this process' device.

    Raises:
        UsageError: if it can't be loaded or compressed.
    """
    teacher = load_translator(about.model, accelerator.device, direction=about.direction)
    style = parse_style(about.style)
    teacher = teacher if style is None else teacher.with_style(style)
    refuse_teacher(teacher, about.model)
    return teacher


def _build_accelerator(device: str) -> Accelerator:
    """As the training builds it again, with nothing that differs between its settings here."""
    chosen = join_processes(device)[1]  # first, for then they wait for each other as long as a conversion may take
    return build_accelerator(chosen, choose_precision("auto", chosen), 1)


def _finish(config: Run, teacher: Translator, accelerator: Accelerator, accept: float, quiet: bool) -> Compression:
    """Does what is left to do of translating, training and comparing."""
    folder, target = config.output, config.data.target
    assert folder is not None and target is not None
    console = Console(highlight=False, quiet=quiet or not accelerator.is_main_process)
    classes = teacher.config.classes
    if classes and not (folder / CLASSES).is_file():
        run_on_main(accelerator, lambda: write_classes(folder / CLASSES, classes))
    costs = run_on_main(accelerator, lambda: _measure(teacher, _build_student(config, teacher)))
    _tell_costs(console, *costs)
    if not target.is_dir():
        with ExitStack() as claimed:
            run_on_main(accelerator, lambda: claimed.enter_context(claim_folder(folder, True)))
            _translate(config, teacher, accelerator, target, console)
    train(config, resume=folder, quiet=quiet)

    def compare() -> Compression:
        student = Translator.load(folder, teacher.device)
        data = (DistilledLabels if config.data.labels else DistilledData)(config.data, True)
        data.divide(config.data.holdout)
        pairs, real = choose_sample(data.validation.pairs, MOST), choose_sample(list(choose_real(data.real)), MOST)
        comparison = compare_with_teacher(student, pairs, real, data.read, not quiet)
        near = comparison.to_teacher["perceptual"] <= accept or comparison.to_teacher["psnr"] >= GOOD
        found = Compression(*costs, comparison, near)
        found.write(folder / REPORT)
        _tell_costs(console, *costs)
        _tell_comparison(console, found, folder, accept)
        return found

    return run_on_main(accelerator, compare)


def _build_student(config: Run, teacher: Translator) -> Translator:
    """An untrained one."""
    architecture = config.method.generator.resolve(teacher.in_channels, teacher.out_channels, config.data.size)
    about = TranslatorConfig(
        method=config.method.name, generator=architecture, size=config.data.size, training=teacher.config.training,
        classes=teacher.config.classes, edges=teacher.config.edges, in_range=teacher.config.in_range, out_range=teacher.config.out_range,
    )  # fmt: skip
    return Translator(about, build_generator(architecture).eval()).to(teacher.device)


def _measure(teacher: Translator, student: Translator) -> tuple[Cost, Cost]:
    """What both take, for images of the student's training size."""
    return measure_cost(teacher, student.config.size), measure_cost(student, student.config.size)


def _translate(config: Run, teacher: Translator, accelerator: Accelerator, target: Path, console: Console) -> None:
    """Lets the teacher translate the photos; what was translated before a stop is kept, and only all of it becomes `target`.

    Raises:
        UserError: if nothing could be translated, or a translation can't be written.
    """
    data, about, unfinished = config.data, config.method.teacher, target.with_name(UNFINISHED)
    source = data.labels or data.path
    assert source is not None and about is not None
    for split, photos in _find_sources(teacher, source).items():
        console.print(f"The teacher translates {photos.source} to {target / split}.", soft_wrap=True)
        ending, frames = _choose_format(teacher, photos.source)
        report = convert(
            teacher, photos.source, unfinished / split, format=ending, existing="skip", frames=frames, metadata=False,
            alpha=False, instances=photos.instances if teacher.config.edges else None, max_side=about.max_side, device=config.device, engine="torch", progress=not console.quiet,
        )  # fmt: skip
        for failure in report.failures:
            if failure.reason.startswith(failure.target):  # it is the disk that fails, and not the photo
                raise _unwritten(failure.reason, target)
        if len(report.failures) == len(report.outcomes):
            reason = report.failures[0].reason.rstrip(".")
            raise UserError(
                f"the teacher could translate none of {photos.source}: {reason}. For other data, remove {target.parent}, and begin anew."
            )
        if accelerator.is_main_process:
            for failure in report.failures:
                announce(f"left out: {failure.source}: {failure.reason}")

    def complete() -> None:
        try:
            unfinished.rename(target)
        except OSError as error:
            raise _unwritten(f"{unfinished} can't be renamed: {error.strerror}", target) from None

    run_on_main(accelerator, complete)


def _choose_format(teacher: Translator, folder: Path) -> tuple[str, Literal["all", "first"]]:
    """The format of the teacher's translations, which holds them as `convert` would write them, and what of several frames is translated.

    Raises:
        UsageError: if there are volumes, and images of another kind, or the teacher makes no volumes.
    """
    files = list_images(folder).files
    others = [file for file in files if find_suffix(file) not in VOLUMES]
    if len(others) == len(files):
        return "png" if teacher.config.out_range is None else "tif", "first"
    if None in (teacher.config.in_range, teacher.config.out_range):
        raise UsageError(f"{folder} holds volumes, and this translator doesn't make such: give it slices, as images.")
    if others:
        raise UsageError(f"{folder} holds volumes, and others such as {others[0].name}; give folders of one kind.")
    return "nii.gz", "all"


def _unwritten(reason: str, target: Path) -> UserError:
    return UserError(
        f"{reason.rstrip('.')}. When that is mended, go on with: img2img compress --resume {target.parent}"
    )


def _tell_costs(console: Console, teacher: Cost, student: Cost) -> None:
    """A table of what both take."""
    table = Table()
    for heading in ("", "multiply-adds", "parameters", "images/s here"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, cost in (("teacher", teacher), ("student", student)):
        values = f"{cost.multiply_adds / 1e9:.3g} G", f"{cost.parameters / 1e6:.3g} M", f"{cost.images_per_second:.3g}"
        table.add_row(name, *values)
    less = teacher.multiply_adds / student.multiply_adds, teacher.parameters / student.parameters
    faster = student.images_per_second / teacher.images_per_second
    table.add_row("", *(f"{ratio:.1f}× less" for ratio in less), f"{faster:.1f}× as many")
    console.print(table)


def _tell_comparison(console: Console, found: Compression, folder: Path, accept: float) -> None:
    """A table of how near the student is to its teacher, and the verdict."""
    comparison = found.comparison
    rows = {"student": comparison.to_teacher} | ({"photo as it is": comparison.copied} if comparison.copied else {})
    table = Table(title=f"Distance to the teacher, {comparison.photos} held-out images")
    for heading in ("", "PSNR", "SSIM", "L1", "perceptual"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, s in rows.items():
        values = f"{s['psnr']:.2f} dB", f"{s['ssim']:.3f}", f"{s['l1']:.4f}", f"{s['perceptual']:.3f}"
        table.add_row(name, *values)
    console.print(table)
    for name, value in comparison.kid.items():
        console.print(f"KID, {name}: {value:.4f}")
    limits = f"a perceptual distance of at most {accept:g} (--accept), or a PSNR of at least {GOOD:g} dB"
    if found.accepted:
        console.print(f"The student is near enough to its teacher: it has {limits}.")
    else:
        console.print(
            f"The student is not near enough to its teacher: good is {limits}. It is kept all the same. More --steps, more images, or a larger --macs bring it nearer."
        )
    console.print(f"Look at it: {(folder / 'index.html').as_uri()}", soft_wrap=True)
