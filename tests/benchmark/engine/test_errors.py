"""How errors of training are recognised and worded."""

import numpy as np
import pytest
import torch
from vtab_peft.benchmark.engine.errors import divergence, is_oom, one_line_message


def test_errors_of_the_cpu_allocator_are_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_oom(caught.value)
    with pytest.raises(MemoryError) as caught:
        np.empty(2**48)
    assert is_oom(caught.value)
    wrapped = RuntimeError("backend compiler failed")
    wrapped.__cause__ = torch.OutOfMemoryError("no room")
    assert is_oom(wrapped)
    assert not is_oom(ValueError("out of memory"))
    assert one_line_message(RuntimeError("one\ntwo")) == "one"
    assert one_line_message(MemoryError()) == "MemoryError"


def test_divergence_names_the_first_bad_step() -> None:
    message = str(divergence([2.0, 3.5, 80.0, float("inf"), float("nan")], 4, 10, 0.01))
    assert "inf in epoch 5 of 10, step 4 of 5, after 2, 3.5, 80, at" in message
    assert "nan in epoch 1 of 2, step 1 of 1, at" in str(divergence([float("nan")], 0, 2, 0.01))
