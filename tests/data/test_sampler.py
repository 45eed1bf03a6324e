from collections import Counter

import pytest

from img2img.data.sampler import BatchOrder, permutation


def keys(order: BatchOrder) -> list[tuple[int, int]]:
    return [key for batch in order for key in batch]


def test_every_epoch_has_each_sample_once_in_another_order() -> None:
    order = keys(BatchOrder(7, 2, 0, 7, seed=3))
    assert Counter(order) == Counter((epoch, index) for epoch in range(2) for index in range(7))
    first = permutation(7, 3, 0).tolist()
    assert first != permutation(7, 3, 1).tolist() and first != permutation(7, 4, 0).tolist()


def test_the_cursor_is_the_number_of_samples_seen() -> None:
    whole = keys(BatchOrder(7, 2, 0, 10, seed=3))
    rest = BatchOrder(7, 2, 6, 7, seed=3)
    assert keys(rest) == whole[6:] and len(rest) == len(list(rest)) == 7


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_see_what_one_with_a_larger_batch_sees(processes: int) -> None:
    alone = list(BatchOrder(7, 2 * processes, 0, 5, seed=1))
    parts = [list(BatchOrder(7, 2, 0, 5, seed=1, process=p, processes=processes)) for p in range(processes)]
    assert [[key for part in batch for key in part] for batch in zip(*parts, strict=True)] == alone


def test_nothing_is_dropped_when_the_batch_does_not_divide_the_epoch() -> None:
    assert {index for epoch, index in keys(BatchOrder(5, 4, 0, 2, seed=0)) if epoch == 0} == set(range(5))
