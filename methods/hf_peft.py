"""Tuners of Hugging Face peft on a timm ViT: the base class, and the method `hf` for any of them.

peft replaces linear maps by name, so the fused `attn.qkv` is split into three.  They are views of its rows, except
while peft injects or merges a tuner, when they are separate linear maps.  The extra `peft` installs the package.
"""

import copy
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import blocks_of
from .base import Method, method
from .updates import LinearUpdateMethod, parse_sites

_PATHS = {"q": "attn.qkv.q", "k": "attn.qkv.k", "v": "attn.qkv.v", "o": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}

_INCOMPLETE = {
    "init_lora_weights='eva'": "computes initial values from data",
    "init_lora_weights='corda'": "computes initial values from data",
    "init_lora_weights='lora_ga'": "computes initial values from gradients",
    "kasa_config": "adds the penalty to the loss",
    "monteclora_config": "adds the penalty to the loss",
    "use_asa": "updates the mask during training",
}
"""Options of peft that are only complete with code that its users call, and what that code does."""


class Rows(nn.Module):
    """One third of the rows of a linear map, with views as weight and bias."""

    def __init__(self, fused: nn.Linear, third: int) -> None:
        super().__init__()
        self.fused, self.third = fused, third

    @property
    def weight(self) -> Tensor:
        return self.fused.weight.chunk(3)[self.third]

    @property
    def bias(self) -> Tensor | None:
        return None if self.fused.bias is None else self.fused.bias.chunk(3)[self.third]

    @property
    def in_features(self) -> int:
        return self.fused.in_features

    @property
    def out_features(self) -> int:
        return self.fused.out_features // 3

    def forward(self, x: Tensor) -> Tensor:  # [b, n, in] -> [b, n, out / 3]
        return F.linear(x, self.weight, self.bias)

    def copied(self) -> nn.Linear:
        """Return a separate linear map with a copy of the rows."""
        outputs, inputs = self.weight.shape
        linear = nn.Linear(inputs, outputs, bias=self.bias is not None, device="meta")  # draws no random numbers
        for name, _ in linear.named_parameters():
            setattr(linear, name, nn.Parameter(getattr(self, name).detach().clone(), requires_grad=False))
        return linear

    @torch.no_grad()
    def take(self, linear: nn.Linear) -> None:
        """Write the weights of the copy back into the rows, as some tuners change them at initialisation."""
        for name, parameter in linear.named_parameters(recurse=False):
            if parameter.requires_grad:
                raise ValueError(f"peft would train the pretrained {name} of query, key or value; leave bias='none'")
            getattr(self, name).copy_(parameter)


class SplitQKV(nn.Module):
    """`attn.qkv` as three linear maps."""

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        self.fused = fused
        self.q, self.k, self.v = (Rows(fused, third).copied() for third in range(3))

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d] -> [b, n, 3 * d]
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)

    def view_rows(self) -> None:
        """Replace the separate linear maps, also inside peft's modules, by views of the fused one."""
        for rows, parent, name in self._innermost():
            rows.take(getattr(parent, name))
            setattr(parent, name, rows)

    def copy_rows(self) -> None:
        """Replace the views by separate linear maps, the inverse of `view_rows`."""
        for rows, parent, name in self._innermost():
            setattr(parent, name, rows.copied())

    def _innermost(self) -> Iterator[tuple[Rows, nn.Module, str]]:
        """Yield rows, parent module and attribute name of the linear map inside peft's modules."""
        for third, name in enumerate("qkv"):
            parent: nn.Module = self
            while hasattr(inner := getattr(parent, name), "base_layer"):
                parent, name = inner, "base_layer"
            yield Rows(self.fused, third), parent, name


def adapt(model: nn.Module, names: list[str] | str, tuner: str, options: dict[str, Any]) -> Any:
    """Apply a tuner of peft to the named modules of `model` and return peft's model object.

    names: a list, or a regular expression.

    Raises:
        ValueError: peft is not installed, does not have the tuner, or refuses the options.
    """
    try:
        from peft import mapping
    except ImportError:
        raise ValueError(f'{tuner} needs peft, which is not installed: pip install "vtab-peft[peft]"') from None
    tuners: dict[str, Any] = {peft_type.value.lower(): peft_type for peft_type in mapping.PEFT_TYPE_TO_TUNER_MAPPING}
    if tuner not in tuners:
        raise ValueError(f"this peft has no tuner {tuner!r}; it has {', '.join(sorted(tuners))}")
    if tuner == "boft":
        _without_cuda_code(options)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Specified to not save")  # random bases come from a fixed seed
            make_config: Any = mapping.PEFT_TYPE_TO_CONFIG_MAPPING[tuners[tuner]]
            config = make_config(target_modules=names, **options)
            warnings.filterwarnings("ignore", message="Unsupported layer type")  # LayerNorms, which ln_tuning is for
            handle = mapping.PEFT_TYPE_TO_TUNER_MAPPING[tuners[tuner]](model, config, "default")
    except (TypeError, AttributeError, ImportError, NotImplementedError, ValueError, KeyError) as error:
        raise ValueError(f"peft cannot put {tuner} on a ViT with {options}: {error}") from None
    handle._cast_adapter_dtype("default")  # as peft.get_peft_model: RandLoRA draws its bases in bf16
    del model.peft_config
    return handle


def _without_cuda_code(options: dict[str, Any]) -> None:
    """Make peft's BOFT use one butterfly factor; with more it compiles CUDA code, or silently falls back to one."""
    if options.get("boft_n_butterfly_factor", 1) > 1:
        raise ValueError("peft's BOFT has one butterfly factor here: more need CUDA code that it compiles at run time")
    from peft.tuners.boft import layer

    layer._FBD_CUDA = False  # as after a failed compilation


def tuned_layers(vit: nn.Module) -> dict[str, Any]:
    """Return peft's layers by module name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in vit.named_modules() if isinstance(module, BaseTunerLayer)}


@dataclass(frozen=True)
class FromPeft(LinearUpdateMethod):
    """Base class of methods that apply a tuner of peft to the named linear maps of every block."""

    sites: str = "qv"
    targets = "q, v"
    evidence = "reference implementation"
    backbones = ("vit", "swin")
    needs = "peft"

    def tuner(self) -> tuple[str, dict[str, Any]]:
        """Return the tuner's name in peft and the options that differ from peft's defaults."""
        raise NotImplementedError(f"{type(self).__name__} must define tuner()")

    def inject(self, vit: VisionTransformer) -> None:
        self.inject_peft(vit)

    def inject_peft(self, vit: VisionTransformer) -> Any:
        """Inject the tuner and return peft's model object."""
        names, split = self.module_names(vit), []
        for ref in blocks_of(vit):
            attention = cast(Any, ref.block.get_submodule("attn"))
            tuned = any(name.startswith(f"{ref.path}.attn.qkv.") for name in ([] if isinstance(names, str) else names))
            if tuned or isinstance(attention.qkv, nn.Linear):  # not what another method of a combination has put there
                attention.qkv = SplitQKV(attention.qkv)
                split.append(attention.qkv)
        handle = adapt(vit, names, *self.tuner())
        for qkv in split:
            qkv.view_rows()
        return handle

    def module_names(self, vit: nn.Module) -> list[str] | str:
        """Return the names of the modules that the tuner replaces, or a regular expression."""
        return [f"{ref.path}.{_PATHS[site]}" for ref in blocks_of(vit) for site in parse_sites(self.sites)]

    def merge(self, vit: VisionTransformer) -> None:
        attentions = [cast(Any, ref.block.get_submodule("attn")) for ref in blocks_of(vit)]
        split = [attention for attention in attentions if isinstance(attention.qkv, SplitQKV)]
        for attention in split:
            attention.qkv.copy_rows()
        for name, layer in tuned_layers(vit).items():
            try:
                layer.requires_grad_(False).merge()
            except NotImplementedError:
                raise TypeError(f"{self.spec()} cannot be merged into the plain model") from None
            vit.set_submodule(name, layer.get_base_layer())
        for attention in split:
            attention.qkv.view_rows()
            attention.qkv = attention.qkv.fused


@method("hf")
class HF(FromPeft):
    """Applies any tuner of peft, given its name and options in peft: `hf(type='miss', options={'r': 8})`.

    Options that need further calls by peft's users are refused.  `inject` also tries every option on a copy of the
    model and refuses those without an effect.
    """

    type: str = "lora"
    options: dict[str, Any] | None = None
    title = "peft"
    stands_for_many = True
    equation = r"W' = \mathrm{peft}(W)"

    def validate(self) -> None:
        super().validate()
        if self.type == "adalora":
            raise ValueError("type='adalora' would never lower its rank; there is a method adalora that does")
        if self.type == "ln_tuning" and self.sites != HF.sites:
            raise ValueError(f"type='ln_tuning' trains the LayerNorms; leave out sites={self.sites!r}")
        for name, value in (self.options or {}).items():
            for option in (name, f"{name}={value!r}"):
                if option in _INCOMPLETE and value is not None and value is not False:
                    raise ValueError(
                        f"{option} would run only in part: in peft, code of the user {_INCOMPLETE[option]}"
                    )

    def tuner(self) -> tuple[str, dict[str, Any]]:
        return self.type, self.options or {}

    def module_names(self, vit: nn.Module) -> list[str] | str:
        if self.type == "ln_tuning":  # names in a list would also match others with the same end
            return "|".join(re.escape(name) for name, module in vit.named_modules() if isinstance(module, nn.LayerNorm))
        return super().module_names(vit)

    def inject(self, vit: VisionTransformer) -> None:
        tried = (self.spec(), repr(vit))
        if tried not in _accepted and not next(vit.parameters()).is_meta:  # the list of methods only counts
            self._try_options(vit)
            _accepted.add(tried)
        super().inject(vit)
        for layer in tuned_layers(vit).values():
            if hasattr(layer, "_attach_hooks"):  # OSF
                layer.register_forward_pre_hook(_project_gradients)

    def _try_options(self, vit: VisionTransformer) -> None:
        """Raise `ValueError` if the tuner does not train on a copy of `vit`, or if an option has no effect there."""
        behaviour = self._behaviour(vit)
        for name, value in (self.options or {}).items():
            rest = {other: setting for other, setting in (self.options or {}).items() if other != name}
            if "dropout" in name or _is_default(self.type, name, value):  # dropout need not act on every forward pass
                continue
            try:
                without = replace(self, options=rest)._behaviour(vit)
            except ValueError:  # needs the option
                continue
            if behaviour.keys() == without.keys() and all(torch.equal(behaviour[k], without[k]) for k in behaviour):
                raise ValueError(
                    f"{name}={value!r} changes nothing in peft's {self.type} on this backbone: peft ignores it here or "
                    "leaves it to code that its users call; leave it out"
                )

    def _behaviour(self, vit: VisionTransformer) -> dict[str, Tensor]:
        """Return tensors, outputs and gradients of an injected copy, from a fixed seed.

        Raises:
            ValueError: the forward pass fails or does not use all trainable parameters, or all gradients are zero.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            injected = copy.deepcopy(vit)
            super().inject(injected)
            found = {name: tensor.clone() for name, tensor in injected.state_dict().items()}
            trained = {name: p for name, p in injected.named_parameters() if p.requires_grad}
            with torch.no_grad():
                for parameter in trained.values():  # initial updates are zero
                    parameter += 0.01 * torch.randn_like(parameter)
            image = torch.randn(1, 3, *cast(Any, vit.patch_embed).img_size)
            for mode in (True, False):
                torch.manual_seed(1)
                try:
                    output = injected.train(mode)(image)
                    gradients = torch.autograd.grad(output.square().sum(), list(trained.values()))
                except Exception as error:
                    raise ValueError(f"peft cannot train {self.type} with {self.options} here: {error}") from error
                if mode and not any(gradient.any() for gradient in gradients):
                    raise ValueError(f"peft does not use {self.type} with {self.options} here: all gradients are zero")
                found[f"output {mode}"] = output.detach()
                found |= {f"gradient {mode} {name}": g for name, g in zip(trained, gradients, strict=True)}
        return found

    def expected_params(self, vit: VisionTransformer) -> int:
        return Method.expected_params(self, vit)  # counts an injected copy: only peft knows the number


def _project_gradients(layer: Any, _: Any) -> None:
    """Attach peft's hooks on the gradients of OSF anew; torch copies and pickles a parameter without its hooks."""
    for adapter, parameters in layer.osf_svd_params.items():
        if not parameters["U_low"]._backward_hooks:
            layer._attach_hooks(adapter)


_accepted: set[tuple[str, str]] = set()
"""Specs of `hf` and backbones on which every option has an effect."""


def _is_default(tuner: str, name: str, value: Any) -> bool:
    """Return True if an option of a tuner has its default value in peft."""
    from peft import mapping

    configs: dict[str, Any] = {kind.value.lower(): cls for kind, cls in mapping.PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    return any(field.name == name and field.default == value for field in fields(configs[tuner]))
