"""AOFT against numbers computed with its official code, and of the paper's form against the published formula."""

import pytest
import torch
from golden_cases import Case, linear
from torch import Tensor, nn
from vtab_peft.methods.aoft import AOFTUpdate, Form, approximately_orthogonal
from vtab_peft.methods.updates import UpdatedLinear


def test_aoft_matrix_in_both_forms() -> None:
    case = Case("aoft_matrix")
    kinds = [key.removesuffix(".q0") for key in case if key.endswith(".q0")]
    assert kinds
    for kind in kinds:
        q = torch.cat([case[f"{kind}.q0"].reshape(1), case[f"{kind}.tail"].flatten()])
        for form in ("paper", "released"):
            golden = case[f"{kind}.AO_{form}"]
            torch.testing.assert_close(
                approximately_orthogonal(q, golden.shape[1], form), golden, rtol=0, atol=1e-12, msg=f"{kind} {form}"
            )
