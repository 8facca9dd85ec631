"""Families of methods, for filtering a long list."""

FAMILIES = {
    "AOFT": (
        *("aoft_lora", "aoft_lora_paper", "aoft_lora_dagger", "aoft_lora_released"),
        *("aoft_adapter", "aoft_adapter_paper", "aoft_adapter_released", "aoft_vpt"),
    ),
    "low rank": (
        *("lora", "rslora", "lora_plus", "lora_fused", "dora", "adalora", "pissa", "vera", "pvera", "randlora", "mlae"),
        *("loha", "lokr", "hira", "gralora", "delora", "deft", "tinylora", "unilora", "vblora", "miss", "pace"),
        *("hydra", "gift", "wegeft", "peanut"),
        *("fact_tt", "fact_tk", "kadaptation", "karst", "glora", "hta", "cara", "bi_lora", "spt_lora", "snell"),
    ),
    "structured": ("fourierft", "waveft", "c3a", "svft", "consolidator"),
    "orthogonal": ("oft", "boft", "hra", "goft", "qgoft", "road", "psoft"),
    "adapter": (
        *("adapter_houlsby", "adapter_pfeiffer", "adapter_intermediate", "adapter_pre", "adapter_parallel"),
        *("adapter_plus", "adapter_noah", "adaptformer", "repadapter", "convpass", "convpass_attn", "bi_adaptformer"),
        *("spt_adapter", "mona", "arc", "sct", "compacter", "lorand", "dyt"),
    ),
    "side network": ("dtl", "dtl_plus", "res_tuning", "synqt", "hst"),
    "prompt": (
        *("vpt_shallow", "vpt_deep", "vqt", "cvpt", "da_vpt", "da_vpt_plus", "e2vpt", "gate_vpt", "vapt", "vfpt"),
        "sa2vp",
    ),
    "scale and shift": ("ssf", "ia3", "rlrr"),
    "part of the model": (
        *("full", "partial", "linear", "layernorm", "bitfit", "difffit", "apla", "gps", "shira", "supertuning"),
    ),
}
"""Family -> methods (our choice): AOFT's variants together, all others by what is trained."""


def family(name: str, plugin: str | None) -> str:
    """Return the family of a method: `plug-in` for plug-ins, `other` for methods without a family."""
    families = (family for family, names in FAMILIES.items() if name in names)
    return "plug-in" if plugin else next(families, "other")
