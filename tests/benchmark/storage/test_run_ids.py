"""A key names all that can change a number, and nothing else; specs survive the text of a record."""

import json
from dataclasses import fields, replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from vtab_peft.benchmark.recipes import UNIFORM
from vtab_peft.benchmark.spec import PROTOCOL, BackboneRef, MethodRef, RunSpec, TaskRef
from vtab_peft.benchmark.storage.json_io import to_text

ROOT = Path(__file__).parents[3]

names = st.text(st.characters(codec="utf-8"), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**40), 2**40)
values = st.recursive(
    names | numbers | st.booleans() | st.none(), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)
specs = st.builds(
    RunSpec,
    backbone=st.builds(BackboneRef, name=names, sha256=names),
    task=st.builds(TaskRef, suite=names, name=names, version=st.integers(1, 9), data=names, provenance=names),
    method=st.builds(
        MethodRef,
        name=names,
        args=st.dictionaries(names, values, max_size=4),
        version=st.integers(1, 9),
        plugin=st.none() | names,
        spec=names,
    ),
    recipe=st.builds(lambda lr, name: replace(UNIFORM, lr=lr, name=name), st.floats(0, 1), names),
    recipe_base=names,
    split=st.sampled_from(["val", "test"]),
    seed=st.integers(0, 2**31),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    std=st.tuples(*[st.floats(0.01, 1)] * 3),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
)


@settings(deadline=None, max_examples=60)
@given(specs)
def test_spec_survives_a_json_round_trip(spec):
    read = RunSpec.from_json(json.loads(to_text({"spec": spec.to_json()}))["spec"])
    assert read == spec
    assert read.run_id() == spec.run_id()


@settings(deadline=None, max_examples=30)
@given(specs, st.randoms(use_true_random=False))
def test_run_id_does_not_depend_on_argument_order(spec, random):
    arguments = list(spec.method.args.items())
    random.shuffle(arguments)
    assert replace(spec, method=replace(spec.method, args=dict(arguments))).run_id() == spec.run_id()


STORED = ROOT / "results/runs/toy_vit/toy/cells/lora"
"""Folder that has runs from before any field came later."""


def test_old_records_keep_their_run_id_with_versioned_fields():
    specs = {path: json.loads(path.read_text())["spec"] for path in sorted(STORED.glob("*.json"))}
    old = {path: stored for path, stored in specs.items() if "framing" not in stored["recipe"]}
    assert old
    for path, stored in old.items():
        spec = RunSpec.from_json(stored)
        assert spec.recipe.framing == "squash"
        assert spec.run_id() == path.stem.partition(".")[0]


def test_versioned_field_changes_the_run_id_where_it_differs(fake):
    before = fake.spec()
    cropped = replace(before, recipe=replace(before.recipe, framing="square_crop"))
    assert cropped.run_id() != before.run_id()
    assert cropped.recipe.base != before.recipe.base
    assert RunSpec.from_json(cropped.to_json()) == cropped


def other(value):
    """A value of the same kind that is not this one."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case tuple():
            return (value[0] + 1, *value[1:])
        case dict():
            return value | {"new": 1}
        case None:
            return 100
    raise AssertionError(value)


LABELS = {("method", "spec"), ("recipe", "source"), ("recipe", "tuned")}
"""What says the same in other words and cannot change a number."""


def changed_specs(spec):
    """Every field of a spec and its parts, with the spec that differs only there."""
    for field in fields(spec):
        part = getattr(spec, field.name)
        if field.name not in ("backbone", "task", "method", "recipe"):
            yield (field.name,), replace(spec, **{field.name: other(part)})
            continue
        for inner in fields(part):
            value = getattr(part, inner.name)
            fraction = inner.name in ("drop_path", "branch_dropout", "mlp_dropout", "label_smoothing")
            changed = replace(part, **{inner.name: 0.25 if fraction else other(value)})
            yield (field.name, inner.name), replace(spec, **{field.name: changed})


def test_run_id_changes_with_every_hashed_field_and_no_other(fake):
    spec = fake.spec()
    spec = replace(spec, recipe=replace(spec.recipe, drop_path=0.0))  # it excludes branch_dropout
    keys = {field: changed.run_id() for field, changed in changed_specs(spec)}
    assert {field for field, key in keys.items() if key == spec.run_id()} == LABELS
    assert len({key for field, key in keys.items() if field not in LABELS}) == len(keys) - len(LABELS) > 35


def test_run_id_changes_with_the_protocol(fake, monkeypatch):
    before = fake.spec().run_id()
    monkeypatch.setattr("vtab_peft.benchmark.spec.PROTOCOL", PROTOCOL + 1)
    assert fake.spec().run_id() != before
