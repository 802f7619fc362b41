"""Run by jax_test.py in a process of its own, where JAX has two devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from keras_learnact import kernels
from tests.kernels.jax_test import assert_close, assert_same_bits, batched, samples

MESH = Mesh(np.array(jax.devices()), ("devices",))


def put(array, *spec):
    return jax.device_put(array, NamedSharding(MESH, PartitionSpec(*spec)))


def compiled(f, *arrays):
    return jax.jit(f).lower(*arrays).compile().as_text()


def calls(hlo):
    """(target, shapes of its results) of every kernel's call."""
    found = re.findall(r"= (.*?) custom-call\(.*?\"keras_learnact\.(\w+)\"", hlo)
    return {target: re.findall(r"f32\[([\d,]+)\]", results) for results, target in found}


def partitions(sample):
    """Along the batch axis, along the axis of the groups, and along another."""
    f = sample.function()
    x, *params, dy = sample.arrays()
    expected = f(x, *params, dy)
    for axis in (0, 2):
        spec = [None] * axis + ["devices"]
        arrays = [put(x, *spec), *(put(p) for p in params), put(dy, *spec)]
        got = jax.jit(f)(*arrays)
        assert_same_bits(got[:2], expected[:2])
        # two sums instead of one
        assert_close(got[2:], expected[2:], 1e-5)
        hlo = compiled(f, *arrays)
        found = calls(hlo)
        if sample.key is not None and axis == 2:
            # Draws follow the order of elements: a part that is not contiguous is gathered.
            assert found[f"{sample.name}Grad"][0] == "6,5,8"
            continue
        for part in got[:2]:
            assert part.sharding.spec[axis] == "devices", part.sharding
        whole = (3, 5, 8) if axis == 0 else (6, 5, 4)
        assert found[f"{sample.name}Grad"][0] == ",".join(map(str, whole)), found
        assert "all-gather" not in hlo
        if params:
            groups = params[0].shape[0] // (2 if axis == 2 else 1)
            assert found[f"{sample.name}Grad"][1] == f"{groups},{params[0].shape[1]}", found
            assert ("all-reduce" in hlo) == (axis == 0)
    # A number of rows that does not go into two parts.
    uneven = [x[:5], *params, dy[:5]]

    def constrained(x, *rest):
        return f(
            jax.lax.with_sharding_constraint(x, NamedSharding(MESH, PartitionSpec("devices"))),
            *rest,
        )

    got, expected = jax.jit(constrained)(*uneven), f(*uneven)
    assert_same_bits(got[:2], expected[:2])
    assert_close(got[2:], expected[2:], 1e-5)
    # A batch of parameters, a part of it on each device.
    arrays, keys = batched(sample)
    arrays = [jnp.concatenate([a, a[:1]]) for a in arrays]
    keys = {k: np.concatenate([v, v[:1]]) for k, v in keys.items()}
    mapped = jax.jit(jax.vmap(lambda key, *a: f(*a, **key)))
    expected = mapped(keys, *arrays)
    arrays = [put(a, "devices") for a in arrays]
    assert_same_bits(mapped(keys, *arrays), expected)
    found = calls(mapped.lower(keys, *arrays).compile().as_text())
    assert found[sample.name][0] == ",".join(map(str, (2, *sample.dy.shape))), found


def shard_map(sample):
    """Inside of it, and its gradient: what differs on no device gets the sum of all."""
    if not hasattr(jax, "shard_map"):
        return
    value = sample.value()
    *arrays, dy = sample.arrays()
    if sample.key is not None:  # every device would draw the same
        value = sample.value(lambda *a: kernels.load()[0].run(*a))
    specs = [PartitionSpec("devices"), *[PartitionSpec() for _ in arrays[1:]]]
    f = jax.shard_map(value, mesh=MESH, in_specs=tuple(specs), out_specs=specs[0])
    halves = [value(part, *arrays[1:]) for part in jnp.split(arrays[0], 2)]
    assert_same_bits([jax.jit(f)(*arrays)], [jnp.concatenate(halves)])

    def loss(f):
        return jax.grad(lambda *a: jnp.sum(f(*a) * dy), tuple(range(len(arrays))))

    def in_halves(x, *params):
        return jnp.concatenate([value(part, *params) for part in jnp.split(x, 2)])

    assert_close(jax.jit(loss(f))(*arrays), loss(in_halves)(*arrays), 1e-5)

    def inside(x, *rest):
        *params, dy = rest
        return jax.grad(lambda *a: jnp.sum(value(*a) * dy), tuple(range(len(arrays))))(x, *params)

    both = jax.shard_map(inside, mesh=MESH, in_specs=(*specs, specs[0]), out_specs=tuple(specs))
    assert_close(jax.jit(both)(*arrays, dy), loss(in_halves)(*arrays), 1e-5)


def explicit(sample):
    """A mesh whose axes are part of the arrays' types."""
    if jax.__version_info__ < (0, 9):
        return  # a psum inside of a partitioned call does not compile in such a mesh
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(jax.sharding.AxisType.Explicit,))
    f = sample.function()
    arrays = sample.arrays()
    expected = f(*arrays)
    with jax.set_mesh(mesh):
        x, *params, dy = arrays
        rows = NamedSharding(mesh, PartitionSpec("devices"))
        whole = NamedSharding(mesh, PartitionSpec())
        arrays = [
            jax.device_put(x, rows),
            *(jax.device_put(p, whole) for p in params),
            jax.device_put(dy, rows),
        ]
        got = jax.jit(f)(*arrays)
    assert_same_bits(got[:2], expected[:2])
    assert_close(got[2:], expected[2:], 1e-5)


if __name__ == "__main__":
    assert jax.device_count() == 2
    for one in samples().values():
        partitions(one)
        shard_map(one)
        explicit(one)
    print(f"right on 2 devices: {len(samples())} kernels")
