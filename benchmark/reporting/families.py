"""Families of methods, for filtering a long list."""

FAMILIES = {
    "AOFT": (
        *("aoft_lora", "aoft_lora_paper", "aoft_lora_dagger", "aoft_lora_released"),
        *("aoft_adapter", "aoft_adapter_paper", "aoft_adapter_released", "aoft_vpt"),
    ),
    "low rank": (
        *("lora", "rslora", "lora_fused", "dora", "adalora", "pissa", "vera", "randlora", "loha", "lokr", "fourierft"),
        *("fact_tt", "fact_tk", "kadaptation", "glora", "hta", "cara", "bi_lora", "spt_lora", "snell"),
    ),
    "adapter": (
        *("adapter_houlsby", "adapter_pfeiffer", "adapter_intermediate", "adapter_pre", "adapter_parallel"),
        *("adapter_plus", "adapter_noah", "adaptformer", "repadapter", "convpass", "convpass_attn", "bi_adaptformer"),
        *("spt_adapter", "mona", "arc", "sct", "dtl", "dtl_plus"),
    ),
    "prompt": ("vpt_shallow", "vpt_deep", "vqt"),
    "orthogonal": ("oft", "boft", "hra"),
    "scale and shift": ("ssf", "ia3", "rlrr"),
    "part of the model": ("full", "partial", "linear", "layernorm", "bitfit", "difffit", "gps", "apla"),
}
"""Family -> methods (our choice): AOFT's variants together, all others by the form of the trained parameters."""


def family(name: str, plugin: str | None) -> str:
    """Return the family of a method: `plug-in` for plug-ins, `other` for methods without a family."""
    families = (family for family, names in FAMILIES.items() if name in names)
    return "plug-in" if plugin else next(families, "other")
