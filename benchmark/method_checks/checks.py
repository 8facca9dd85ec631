"""Checks that every method must pass, one function per requirement, in the style of scikit-learn's estimator checks.

`vtab-peft check-method` runs them on plug-ins, and the tests on every registered method, with tiny backbones.
"""

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...datasets.first_of import first_of
from ...methods import Method
from ..engine.fast_path import prepare_for_bf16, prune_last_block_to_cls
from ..engine.injection import Injected, inject
from ..engine.live_model import copy_tensors
from .class_checks import check_class_attributes, check_spec_roundtrip
from .tiny_models import NO_DROP_PATH, STEPS, Case, inject_copy, sample_images, train_few_steps, train_injected

Check = Callable[[Case], None]


def check_output_shape(case: Case) -> None:
    """Features are finite and `vit.num_features` wide, in training and in evaluation mode."""
    for training in (False, True):
        vit = inject_copy(case.vit, case.method).vit
        features, expected = vit.train(training)(sample_images()), (len(sample_images()), vit.num_features)
        if features.shape != expected:
            found = f"the features of {expected[0]} images have shape {tuple(features.shape)}, not {expected}"
            advice = "Return from every module the shape that the replaced module returns, or set vit.num_features"
            raise case.failure(found, advice)
        if not features.isfinite().all():
            raise case.failure("the initial features are not finite", "Look for a division by zero")


def check_starts_as_identity(case: Case) -> None:
    """Initial features equal the pretrained model's bit for bit if and only if `starts_as_identity` is True."""
    with torch.no_grad():
        before, after = case.vit(sample_images()), case.fresh.vit.eval()(sample_images())
    if case.method.starts_as_identity and not torch.equal(before, after):
        found = f"the initial features differ from the pretrained model's by up to {(after - before).abs().max():.2g}"
        raise case.failure(found, "Initialise the additions to zero, or set starts_as_identity = False")
    if not case.method.starts_as_identity and torch.equal(before, after):
        found = "starts_as_identity is False, but the initial features equal the pretrained model's bit for bit"
        raise case.failure(found, "Remove starts_as_identity")


def check_loss_terms(case: Case) -> None:
    """`loss` and `penalty` return scalar tensors that require grad, or for `penalty` None."""
    _ = case.trained  # each step of the training refuses other values


def check_trains_parameters(case: Case) -> None:
    """The method trains parameters of the model and no other tensors; with `frozen_features`, it trains none."""
    vit, sizes = case.trained[0].vit, _trainable(case.trained[0])
    registered = {id(p) for p in vit.parameters()}
    if others := [tuple(leaf.shape) for leaf in _leaves(vit(sample_images())) if id(leaf) not in registered]:
        found = f"the model also trains tensors that are no parameters of it, of shape {_some(map(str, {*others}))}"
        raise case.failure(found, "Use nn.Parameter for tensors, and nn.ModuleList for lists of modules")
    if unusual := [name for name, p in vit.named_parameters() if p.requires_grad and p.dtype != torch.float32]:
        found = f"{_some(f'{name} ({vit.get_parameter(name).dtype})' for name in unusual)} is trainable and not float32"
        raise case.failure(found, "Keep parameters in torch.float32, a complex one as two real parts")
    if case.method.frozen_features and sizes:
        found = f"frozen_features is True, but {sum(sizes.values()):,} parameters are trainable: {_some(sizes)}"
        raise case.failure(found, "Remove frozen_features, with which a run trains the head alone")
    if not case.method.frozen_features and not sizes:
        advice = "Set new parameters on modules of the model, or unfreeze its own by requires_grad_(True)"
        raise case.failure("no parameter is trainable", advice)


def check_gradients_reach_all(case: Case) -> None:
    """Every trainable tensor gets a non-zero gradient within a few steps."""
    injected, with_gradient = case.trained
    without = [name for name in _trainable(injected) if name not in with_gradient | case.untrained]
    if without:
        advice = "Use it in `forward`, and initialise at most one of two factors to zero"
        raise case.failure(f"no gradient within {STEPS} steps for {_some(without)}", advice)


def check_frozen_unchanged(case: Case) -> None:
    """Training changes no frozen weight and leaves no gradient on it."""
    pairs = zip(case.fresh.vit.named_parameters(), case.trained[0].vit.parameters(), strict=True)
    frozen = [(name, before, after) for (name, before), after in pairs if not before.requires_grad]
    if moved := [name for name, before, after in frozen if not torch.equal(before, after)]:
        advice = "Unfreeze trained parameters in `inject`, and write to no others"
        raise case.failure(f"training changed {_some(moved)}, which had requires_grad = False", advice)
    if graded := [name for name, _, after in frozen if after.grad is not None]:
        found = f"training left a gradient on {_some(graded)}"
        raise case.failure(found, "Keep requires_grad of frozen weights False")


def check_backbone_unchanged(case: Case) -> None:
    """Injection, training and counting do not modify the original backbone, which other methods use."""
    _ = case.trained  # injects and trains, unless an earlier check did
    counting = replace(case)  # a backbone of its own, as other checks go on with this one
    counting.method.expected_params(counting.vit)
    changed = []
    for vit, before in ((case.vit, case.checkpoint), (counting.vit, counting.checkpoint)):
        after = vit.state_dict()
        changed += [name for name in {**before, **after} if not _same(before, after, name)]
        changed += [name for name, p in vit.named_parameters() if p.requires_grad]
    if changed:
        found = f"the original backbone was changed or unfrozen: {_some(changed)}"
        raise case.failure(found, "`expected_params` must not modify its model, nor `inject` any other model")


def check_parameter_count(case: Case) -> None:
    """The number of trainable parameters equals `expected_params`."""
    expected, counted = case.method.expected_params(replace(case).vit), case.fresh.trainable_params()
    if counted != expected:
        sizes = sorted(_trainable(case.fresh).items(), key=lambda item: -item[1])
        found = f"{counted:,} parameters are trainable, `expected_params` returns {expected:,}; the largest are "
        found += _some(f"{name} ({size:,})" for name, size in sizes)
        raise case.failure(found, "Freeze what should not be trained, or correct the formula")


def check_deterministic(case: Case) -> None:
    """Two injections with the same seed give equal weights."""
    first, second = case.fresh.vit.state_dict(), inject_copy(case.vit, case.method).vit.state_dict()
    if differing := [name for name in {**first, **second} if not _same(first, second, name)]:
        advice = "Draw random numbers only from torch's global generator, which is seeded for you"
        raise case.failure(f"two injections with one seed differ in {_some(differing)}", advice)


def check_reused_model(case: Case) -> None:
    """A trained model with the values of a fresh one trains as that does, because runs reuse a compiled model."""
    used, fresh = train_few_steps(case.vit, case.method)[0], inject_copy(case.vit, case.method)
    if not copy_tensors(fresh.vit, used.vit):
        return  # a run would use the fresh one
    for injected in (used, fresh):
        train_injected(injected, case.method)
    first, second = fresh.adapter(), used.adapter()
    if differing := [name for name in first if not torch.equal(first[name], second[name])]:
        advice = "Keep state that changes, such as a step counter, in a buffer: `self.register_buffer(...)`"
        raise case.failure(f"a second training in the same model differs in {_some(differing)}", advice)


def check_adapter_roundtrip(case: Case) -> None:
    """A fresh model with a loaded adapter computes exactly the trained features."""
    injected, _ = case.trained
    if case.method.restores_without_examples:
        fresh = inject(case.vit, case.method, NO_DROP_PATH, seed=2)
    else:
        fresh = inject_copy(case.vit, case.method, seed=2)
    fresh.load_adapter(injected.adapter())
    with torch.no_grad():
        trained, loaded = injected.vit(sample_images()), fresh.vit.eval()(sample_images())
    if not torch.equal(trained, loaded):
        found = f"the features of a fresh model with the adapter loaded differ by up to {_distance(loaded, trained)}"
        advice = "Keep all state in parameters and buffers; compute buffers with persistent=False from the checkpoint"
        raise case.failure(found, advice)


def check_adapter_contents(case: Case) -> None:
    """The adapter contains the trainable parameters and, except for indices and running statistics, nothing else."""
    injected = case.fresh
    batch_norms = nn.BatchNorm1d, nn.BatchNorm2d
    norms = [name for name, module in injected.vit.named_modules() if isinstance(module, batch_norms)]
    statistics = {f"{name}.{kind}" for name in norms for kind in ("running_mean", "running_var")}
    adapter = injected.adapter()
    numbers = {name: t for name, t in adapter.items() if t.is_floating_point() or t.is_complex()}
    saved = {name: tensor for name, tensor in numbers.items() if name not in statistics}
    if sum(tensor.numel() for tensor in saved.values()) != injected.trainable_params():
        more = [name for name in saved if name not in _trainable(injected)]
        found = f"the adapter would also contain {_some(more)}" if more else "the adapter contains other tensors"
        raise case.failure(found, "Register buffers that follow from the checkpoint with persistent=False")


def check_merge_equivalence(case: Case) -> None:
    """After `merge` the model has the plain model's tensors and computes the same features."""
    if not case.method.mergeable():
        return
    injected = case.restored()
    with torch.no_grad():
        expected = injected.vit(sample_images())
        case.method.merge(injected.vit)
        merged = injected.vit(sample_images())
    plain = list(case.vit.state_dict())
    # A merged model may have a new bias where the plain model has none
    names = [name for name in injected.vit.state_dict() if name in plain or not name.endswith(".bias")]
    if names != plain:
        odd = sorted(set(names) ^ set(plain)) or names
        advice = "Put the pretrained modules back in their positions, with the trained parameters merged"
        raise case.failure(f"the merged model and the plain one differ in {_some(odd)}", advice)
    if not _close(merged, expected):
        found = f"the features of the merged model differ by up to {_distance(merged, expected)}"
        raise case.failure(found, "Merge all trained parameters, also into the bias; or do not define `merge`")
    if set(weights := injected.vit.state_dict()) == set(plain):
        loaded = replace(case).vit
        loaded.load_state_dict(weights)
        if not _close(alone := loaded(sample_images()), expected):
            found = f"the merged weights give a plain model features that differ by up to {_distance(alone, expected)}"
            raise case.failure(found, "Let `merge` undo what `inject` changed beside weights, such as an activation")


def check_token_independence(case: Case) -> None:
    """After attention, modules process each token separately, so the last block can be pruned to the class token."""
    injected = case.restored()
    for module in injected.vit.modules():
        if isinstance(module, nn.Dropout):  # inactive here, but a positive rate would disable the pruning
            module.p = 0.0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # the pruning compares itself with the whole block
            prune_last_block_to_cls(injected.vit)
    except UserWarning:
        found = "the features differ when the last block computes one token"
        advice = "A module that reads several tokens must replace the attention or the whole block"
        raise case.failure(found, advice) from None


def check_bf16_close(case: Case) -> None:
    """Features under bf16 autocast are within 5 % of those in fp32."""
    injected = case.restored()
    with torch.no_grad():
        exact = injected.vit(sample_images())
        prepare_for_bf16(injected.vit, "cpu")
        with torch.autocast("cpu", torch.bfloat16):
            rounded = injected.vit(sample_images()).float()
    error = float((rounded - exact).norm() / exact.norm())
    if not error < 0.05:
        advice = "Avoid differences of large numbers; leave dtypes to autocast and type promotion"
        raise case.failure(f"the features differ by {100 * error:.0f} % under bf16 autocast", advice)


def check_compiles(case: Case, backend: str = "aot_eager") -> None:
    """`torch.compile` captures the model as one graph that computes the same features."""
    from torch._dynamo.exc import TorchDynamoException  # importing it takes a second

    injected = case.restored()
    with torch.no_grad():
        expected = injected.vit(sample_images())
    torch.compiler.reset()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own
            compiled = torch.compile(injected.vit, fullgraph=True, backend=backend)(sample_images())
            if compiled.requires_grad:  # False for the linear probe
                compiled.sum().backward()
    except TorchDynamoException as error:
        reason, frames = str(error).partition("\n")[0], re.findall(r'File "(.+)", line (\d+)', str(error))
        at = " at {}:{}".format(*frames[-1]) if frames else ""
        advice = "In `forward`, do not branch on tensor values, and call only torch functions"
        raise case.failure(f"torch.compile stops{at}: {reason}", advice) from None
    if not _close(compiled.detach(), expected):
        found = f"the compiled model's features differ by up to {_distance(compiled.detach(), expected)}"
        raise case.failure(found, "Write `forward` without side effects")


CLASS_CHECKS: tuple[Check, ...] = (check_class_attributes, check_spec_roundtrip)
"""Checks that do not depend on a backbone."""

CHECKS: tuple[Check, ...] = (
    *CLASS_CHECKS,
    check_output_shape,
    check_starts_as_identity,
    check_loss_terms,
    check_trains_parameters,
    check_gradients_reach_all,
    check_frozen_unchanged,
    check_backbone_unchanged,
    check_parameter_count,
    check_deterministic,
    check_reused_model,
    check_adapter_roundtrip,
    check_adapter_contents,
    check_merge_equivalence,
    check_token_independence,
    check_bf16_close,
    check_compiles,
)

SLOW_CHECKS: tuple[Check, ...] = (check_compiles,)


def reason_to_skip(check: Check, method: Method) -> str:
    """Return why a check says nothing about a method; empty if it does."""
    cls = type(method)
    if check is check_loss_terms and cls.loss is Method.loss and cls.penalty is Method.penalty:
        return "the class defines neither `loss` nor `penalty`"
    if check is check_merge_equivalence and not cls.mergeable():
        return "the class defines no `merge`, so `export --as merged` cannot make a plain timm model of a run"
    return ""


def _trainable(injected: Injected) -> dict[str, int]:
    """Return the sizes of all trainable tensors by name."""
    return {name: p.numel() for name, p in injected.vit.named_parameters() if p.requires_grad}


def _leaves(output: Tensor) -> list[Tensor]:
    """Return the tensors that require grad from which a tensor was computed."""
    waiting, seen, leaves = [output.grad_fn], set(), []
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [earlier for earlier, _ in node.next_functions]
            leaves += [leaf] if (leaf := getattr(node, "variable", None)) is not None else []
    return leaves


def _same(left: dict[str, Tensor], right: dict[str, Tensor], name: str) -> bool:
    return name in left and name in right and torch.equal(left[name], right[name])


def _close(features: Tensor, expected: Tensor) -> bool:
    return features.shape == expected.shape and torch.allclose(features, expected, rtol=1e-4, atol=1e-5)


def _distance(features: Tensor, expected: Tensor) -> str:
    return f"{(features - expected).abs().max():.2g}"


def _some(names: Iterable[str]) -> str:
    return first_of([*names], 3)
