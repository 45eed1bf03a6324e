"""The process in which a network is quantised: `python -m img2img.inference.quantisation FOLDER LEAST PRECISION THREADS`.

NNCF changes PyTorch's functions when it is imported, so it is kept out of the process that translates. The folder holds ``model.xml`` and
``images.npz``; ``quantised.xml`` is put beside them.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from img2img.images import Array
from img2img.inference.openvino import compile_model, import_openvino, is_convolution, measure_psnr, open_core


def quantise_model(
    model: Any, sources: Sequence[Array], truths: Sequence[Array], least: float, precision: Any, threads: int
) -> Any:
    """A model whose inner convolutions compute in int8, but for those that would take it too far from fp32; as `openvino.quantise`."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    convolutions = [node for node in model.get_ordered_ops() if is_convolution(node)]
    outer = nncf.IgnoredScope(names=[node.get_friendly_name() for node in (convolutions[0], convolutions[-1])])
    data = nncf.Dataset(list(sources))
    found = nncf.quantize(model, data, subset_size=len(sources), ignored_scope=outer)
    if measure_psnr(compile_model(found, precision, threads), sources, truths) >= least:
        return found

    def validate(compiled: Any, _: Any) -> tuple[float, None]:
        return min(least, measure_psnr(compiled, sources, truths)), None

    return nncf.quantize_with_accuracy_control(
        model, data, data, validate, max_drop=0.01, subset_size=len(sources), ignored_scope=outer
    )


def main(folder: Path, least: float, precision: str, threads: int) -> None:
    """Reads, quantises and writes."""
    openvino = import_openvino()
    with np.load(folder / "images.npz", allow_pickle=False) as arrays:
        count = len(arrays.files) // 2
        sources, truths = ([arrays[f"{kind}{number}"] for number in range(count)] for kind in ("source", "truth"))
    model = open_core().read_model(folder / "model.xml")
    found = quantise_model(model, sources, truths, least, precision, threads)
    openvino.save_model(found, folder / "quantised.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
