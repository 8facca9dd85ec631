"""What every method must do: one function a promise, and the function's name is the promise.

`vtab-peft check-method` holds plug-ins to it and the tests hold every registered method to it, on two tiny backbones.
"""

import copy
import re
import warnings
from collections.abc import Callable, Iterable
from typing import get_args

import torch
from torch import Tensor, nn

from ...methods import Method, parse
from ...methods.anatomy import FAMILIES
from ...methods.base import Evidence, method_name
from ..engine.fast_path import prepare_for_bf16, prune_last_block_to_cls
from ..engine.injection import Injected, inject
from .tiny_models import STEPS, STILL, Case, Violation, pictures, put_into, trained

CLASS_FACTS = (
    *("title", "paper", "equation", "targets", "evidence"),
    *("version", "lr", "search", "frozen_features", "starts_as_identity", "needs", "stands_for_many", "backbones"),
    "restores_without_examples",
)
"""What is said of a method without a type annotation."""

EVIDENCE: tuple[str, ...] = get_args(Evidence)


Check = Callable[[Case], None]


def sentence(check: Check) -> str:
    return check.__name__.replace("_", " ")


def lists_can_say_what_it_is(case: Case) -> None:
    method, cls = case.method, type(case.method)
    paper, first_line = getattr(cls, "paper", None), (cls.__doc__ or "").partition("\n")[0]
    no_sentence = not first_line.endswith(".") or first_line.startswith(f"{cls.__name__}(")  # what dataclass writes
    wrong = {
        **{f"`{name}` is missing": not getattr(cls, name, None) for name in ("title", "targets", "equation")},
        **{f"`{name}` is annotated, which makes it a field": name in method.args() for name in CLASS_FACTS},
        "`paper` is missing (None where there is none)": not hasattr(cls, "paper"),
        "the year of `paper` is none from 2017 to 2026": paper is not None and not 2017 <= paper.year <= 2026,
        f"`evidence` is none of {', '.join(EVIDENCE)}": getattr(cls, "evidence", None) not in EVIDENCE,
        "`version` is below 1": method.version < 1,
        f"`backbones` names something else than {', '.join(FAMILIES)}": not {*method.backbones} <= {*FAMILIES},
        "the docstring's first line is no sentence that ends with a period": no_sentence,
        **{f"`search` names {field}, which is no field": field not in method.args() for field in method.search},
    }
    if any(wrong.values()):
        raise Violation("; ".join(text for text, is_so in wrong.items() if is_so), "Write it into the class")
    for field, values in method.search.items():
        for value in values:
            _read(f"{method_name(cls)}({field}={value!r})", "`search` holds a value that is refused")


def its_spec_string_means_the_same_method(case: Case) -> None:
    cls, method = type(case.method), case.method
    if "__dataclass_fields__" not in vars(cls):
        raise Violation("the class is no dataclass", "Put @dataclass(frozen=True) between @register and the class")
    everything = ", ".join(f"{name}={value!r}" for name, value in method.args().items())
    for spec in (method.spec(), f"{method_name(cls)}({everything})"):
        if _read(spec, "its own spec string is refused") != method:
            advice = "Leave the fields in __post_init__ as they were given; derive what you need in `inject`"
            raise Violation(f"{spec} means another method than the one that says so of itself", advice)


def features_keep_their_shape(case: Case) -> None:
    expected = len(pictures()), case.vit.num_features
    for training in (False, True):
        features = put_into(case.vit, case.method).vit.train(training)(pictures())
        if features.shape != expected:
            found = f"the features of {expected[0]} images have shape {tuple(features.shape)}, not {expected}"
            raise case.violation(found, "Return from every module the shape that the one it replaces returns")
        if not features.isfinite().all():
            raise case.violation("the features are not finite", "Look for a division by zero at the start")


def the_start_is_the_pretrained_model_where_claimed(case: Case) -> None:
    with torch.no_grad():
        before, after = case.vit(pictures()), put_into(case.vit, case.method).vit.eval()(pictures())
    if case.method.starts_as_identity and not torch.equal(before, after):
        found = (
            f"the features differ from the pretrained model's by up to {(after - before).abs().max():.2g} at the start"
        )
        raise case.violation(found, "Let what is added start at zero, or set starts_as_identity = False")
    if not case.method.starts_as_identity and torch.equal(before, after):
        found = "starts_as_identity is False, but the features are the pretrained model's to the bit"
        raise case.violation(found, "Leave starts_as_identity out")


def every_trainable_tensor_learns(case: Case) -> None:
    injected, moved = trained(case.vit, case.method)
    still = [name for name in _trainable(injected) if name not in moved | case.untrained]
    if still:
        advice = "Use it in `forward`, and of two factors start only one at zero"
        raise case.violation(f"no gradient within {STEPS} steps for {_some(still)}", advice)


def frozen_weights_do_not_move(case: Case) -> None:
    fresh, (injected, _) = put_into(case.vit, case.method).vit, trained(case.vit, case.method)
    pairs = zip(fresh.named_parameters(), injected.vit.parameters(), strict=True)
    frozen = [(name, before, after) for (name, before), after in pairs if not before.requires_grad]
    if moved := [name for name, before, after in frozen if not torch.equal(before, after)]:
        advice = "Unfreeze in `inject` what is to learn, and write to nothing else"
        raise case.violation(f"training changed {_some(moved)}, which had requires_grad = False", advice)
    if graded := [name for name, _, after in frozen if after.grad is not None]:
        raise case.violation(
            f"training left a gradient on {_some(graded)}", "Keep requires_grad of frozen weights False"
        )


def the_original_backbone_is_left_alone(case: Case) -> None:
    before = copy.deepcopy(case.vit.state_dict())
    trained(case.vit, case.method)
    case.method.expected_params(case.vit)
    after = case.vit.state_dict()
    changed = [name for name in {**before, **after} if not _same(before, after, name)]
    changed += [name for name, p in case.vit.named_parameters() if p.requires_grad]
    if changed:
        found = f"the model that other methods go on with was changed or unfrozen: {_some(changed)}"
        raise case.violation(
            found, "`expected_params` only looks at its model; `inject` writes to no other than its own"
        )


def the_parameter_count_is_the_closed_form(case: Case) -> None:
    injected = put_into(case.vit, case.method)
    claimed, counted = case.method.expected_params(case.vit), injected.trainable_params()
    if counted != claimed:
        sizes = sorted(_trainable(injected).items(), key=lambda item: -item[1])
        found = f"{counted:,} parameters learn, `expected_params` says {claimed:,}; the largest are "
        found += _some(f"{name} ({size:,})" for name, size in sizes)
        raise case.violation(found, "Freeze what should not learn, or correct the formula")


def the_same_seed_gives_the_same_weights(case: Case) -> None:
    first, second = (put_into(case.vit, case.method, seed=5).vit.state_dict() for _ in range(2))
    if differing := [name for name in {**first, **second} if not _same(first, second, name)]:
        advice = "Draw from torch's global generator only, which is seeded for you"
        raise case.violation(f"two injections with one seed differ in {_some(differing)}", advice)


def what_was_learned_goes_into_a_fresh_model(case: Case) -> None:
    injected, _ = trained(case.vit, case.method, seed=1)
    looks = not case.method.restores_without_examples
    fresh = put_into(case.vit, case.method, seed=2) if looks else inject(case.vit, case.method, STILL, seed=2)
    fresh.load_adapter(injected.adapter())
    with torch.no_grad():
        learned, loaded = injected.vit(pictures()), fresh.vit.eval()(pictures())
    if not torch.equal(learned, loaded):
        found = (
            f"a fresh model with the adapter loaded computes features up to {(loaded - learned).abs().max():.2g} away"
        )
        advice = (
            "Keep all state in parameters and buffers; a buffer with persistent=False must follow from the checkpoint"
        )
        raise case.violation(found, advice)


def the_adapter_holds_what_learns_and_no_more(case: Case) -> None:
    injected = put_into(case.vit, case.method)
    held = {name: t for name, t in injected.adapter().items() if t.is_floating_point()}  # the rest are indices
    if sum(tensor.numel() for tensor in held.values()) != injected.trainable_params():
        more = [name for name in held if name not in _trainable(injected)]
        found = f"the adapter file would also hold {_some(more)}" if more else "the adapter file holds other tensors"
        raise case.violation(found, "Register buffers that follow from the checkpoint with persistent=False")


def if_it_merges_the_plain_model_computes_the_same(case: Case) -> None:
    if not case.method.mergeable():
        return
    injected, _ = trained(case.vit, case.method)
    with torch.no_grad():
        expected = injected.vit(pictures())
        case.method.merge(injected.vit)
        merged = injected.vit(pictures())
    plain = list(case.vit.state_dict())
    names = [name for name in injected.vit.state_dict() if name in plain or not name.endswith(".bias")]
    if names != plain:  # but for biases that were learned where the plain model has none
        odd = sorted(set(names) ^ set(plain)) or names
        advice = "Put the pretrained modules back where they were, with what was learned folded in"
        raise case.violation(f"the merged model is not the plain one; they differ in {_some(odd)}", advice)
    if not _close(merged, expected):
        found = f"the features of the merged model are up to {(merged - expected).abs().max():.2g} away"
        raise case.violation(found, "Fold in all that was learned, also into the bias; or define no `merge`")


def past_attention_each_token_is_by_itself(case: Case) -> None:
    injected, _ = trained(case.vit, case.method)
    with torch.no_grad():
        expected = injected.vit(pictures())
        for module in injected.vit.modules():
            if isinstance(module, nn.Dropout):  # at rest here; where a method can be told to have none, this holds too
                module.p = 0.0
        if not prune_last_block_to_cls(injected.vit):
            return
        alone = injected.vit(pictures())
    if not _close(alone, expected):
        away = float((alone - expected).abs().max())
        found = f"the features are up to {away:.2g} away where the last block goes on with one token"
        advice = "What looks at several tokens takes the place of the attention or of the whole block"
        raise case.violation(found, advice)


def bf16_stays_close_to_fp32(case: Case) -> None:
    injected, _ = trained(case.vit, case.method)
    with torch.no_grad():
        exact = injected.vit(pictures())
        prepare_for_bf16(injected.vit, "cpu")
        with torch.autocast("cpu", torch.bfloat16):
            rounded = injected.vit(pictures()).float()
    away = float((rounded - exact).norm() / exact.norm())
    if not away < 0.05:
        advice = "Take no difference of large numbers; leave dtypes to autocast and to type promotion"
        raise case.violation(f"the features are {100 * away:.0f} % away under bf16 autocast", advice)


def it_compiles_as_one_graph(case: Case, backend: str = "aot_eager") -> None:
    from torch._dynamo.exc import TorchDynamoException  # takes a second that the other checks need not wait

    injected, _ = trained(case.vit, case.method)
    with torch.no_grad():
        expected = injected.vit(pictures())
    torch.compiler.reset()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own
            compiled = torch.compile(injected.vit, fullgraph=True, backend=backend)(pictures())
            if compiled.requires_grad:  # the linear probe has nothing to train in here
                compiled.sum().backward()
    except TorchDynamoException as error:
        reason, places = str(error).partition("\n")[0], re.findall(r'File "(.+)", line (\d+)', str(error))
        at = " at {}:{}".format(*places[-1]) if places else ""
        advice = "In `forward`, decide nothing by the values of tensors and call nothing but torch"
        raise case.violation(f"torch.compile cannot go on{at}: {reason}", advice) from None
    if not _close(compiled.detach(), expected):
        found = f"the compiled model's features are up to {(compiled.detach() - expected).abs().max():.2g} away"
        raise case.violation(found, "Write `forward` without side effects")


OF_THE_CLASS: tuple[Check, ...] = (lists_can_say_what_it_is, its_spec_string_means_the_same_method)
"""What has nothing to do with a backbone."""

CHECKS: tuple[Check, ...] = (
    *OF_THE_CLASS,
    features_keep_their_shape,
    the_start_is_the_pretrained_model_where_claimed,
    every_trainable_tensor_learns,
    frozen_weights_do_not_move,
    the_original_backbone_is_left_alone,
    the_parameter_count_is_the_closed_form,
    the_same_seed_gives_the_same_weights,
    what_was_learned_goes_into_a_fresh_model,
    the_adapter_holds_what_learns_and_no_more,
    if_it_merges_the_plain_model_computes_the_same,
    past_attention_each_token_is_by_itself,
    bf16_stays_close_to_fp32,
    it_compiles_as_one_graph,
)

SLOW: tuple[Check, ...] = (it_compiles_as_one_graph,)


def _read(spec: str, found: str) -> Method:
    try:
        return parse(spec)
    except ValueError as error:
        raise Violation(f"{found}: {error}", "Fields are numbers, text, None, or tuples of them") from None


def _trainable(injected: Injected) -> dict[str, int]:
    """Names and sizes."""
    return {name: p.numel() for name, p in injected.vit.named_parameters() if p.requires_grad}


def _same(left: dict[str, Tensor], right: dict[str, Tensor], name: str) -> bool:
    return name in left and name in right and torch.equal(left[name], right[name])


def _close(features: Tensor, expected: Tensor) -> bool:
    return features.shape == expected.shape and torch.allclose(features, expected, rtol=1e-4, atol=1e-5)


def _some(names: Iterable[str]) -> str:
    """The first three, and how many more."""
    every = list(names)
    rest = f" and {len(every) - 3} more" if len(every) > 3 else ""
    return ", ".join(every[:3]) + rest
