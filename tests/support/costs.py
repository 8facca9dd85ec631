"""Cost records made from a few facts and no model."""

from vtab_peft.benchmark.spec import RunSpec
from vtab_peft.benchmark.storage.costs import Cost, Inference, Latency, Setup, Training

SETUP = Setup(device="a CPU", precision="fp32", threads=2, image_size=224, train_batch=64, batches=(1, 64))


def make_cost(spec: RunSpec, milliseconds: float = 8.0, setup: Setup = SETUP) -> Cost:
    """Return costs that halve when the method is deployed."""
    trained, deployed = (
        Inference(flops, [Latency(1, ms), Latency(64, 32 * ms)])
        for flops, ms in ((8, milliseconds), (4, milliseconds / 2))
    )
    return Cost(
        schema=1,
        backbone=spec.backbone.name,
        method=spec.method,
        title="a method",
        setup=setup,
        trainable_params=10,
        adapter_bytes=2000,
        training=Training(3 * 10**9, 500.0, 128.0, 700_000_000),
        trained=trained,
        deployed_as="merged",
        deployed=deployed,
        provenance={"device": setup.device},
    )
