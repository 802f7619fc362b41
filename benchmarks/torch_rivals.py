"""PAU and DiTAC of PyTorch, measured in a process of their own without TensorFlow and JAX.

`benchmarks.activations --torch_python=…` starts `python -m benchmarks.torch_rivals` and writes
one request in JSON on each line of its standard input; each gets one line of JSON as the answer:

    {"size": n}                        ["ready"]; inputs of n numbers are made, all is compiled
    {"round": i}                       [[name, pass, seconds], …] of that round of its clock

The first line that it writes says what it measures: names of `RIVALS` that can be imported.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.clock import Case, Clock

# The slow ones take part in every so-manieth round.
RARELY = 5

# Of DiTAC as it is measured: no cell is walked through in no time.
DITAC_INTERVAL, DITAC_CELLS, DITAC_SPEED = (-0.5, 2.0), 10, 0.3


def relu():
    import torch

    return torch.nn.ReLU()


def pau():
    """The formula with denominator "A" and its degrees (5, 4), as one writes it in PyTorch."""
    import torch

    class PAU(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.numerator = torch.nn.Parameter(torch.linspace(0.02, 0.6, 6))
            self.denominator = torch.nn.Parameter(torch.linspace(0.1, 0.4, 4))

        def forward(self, x):
            p, q, magnitude = self.numerator[5], 0, x.abs()
            for j in range(4, -1, -1):
                p = p * x + self.numerator[j]
            for k in range(3, -1, -1):
                q = (q + self.denominator[k].abs()) * magnitude
            return p / (1 + q)

    return PAU()


def rational_activations():
    """The package of PAU's authors."""
    from rational.torch import Rational

    return Rational(cuda=False)


def difw():
    """DiTAC around the transform of the package difw, by its closed form."""
    import difw
    import torch

    lo, hi = DITAC_INTERVAL
    cells, speed = DITAC_CELLS, DITAC_SPEED
    transform = difw.Cpab(cells, backend="pytorch", device="cpu", basis="rref")
    velocity = torch.full((cells + 1, 1), speed)
    velocity[0] = velocity[-1] = 0
    basis = torch.eye(transform.params.d)
    velocities = transform.calc_velocity(torch.linspace(0, 1, cells + 1), basis)
    theta = torch.linalg.lstsq(velocities.T, velocity).solution.T

    class DiTAC(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = torch.nn.Parameter(theta)

        def forward(self, x):
            place = ((x - lo) / (hi - lo)).clamp(0, 1).reshape(-1)
            warped = transform.transform_grid(place, self.theta, method="closed_form")
            warped = lo + (hi - lo) * warped.reshape(x.shape)
            below = 0.5 * torch.special.erfc(x * -(0.5**0.5))
            return torch.where((x >= lo) & (x <= hi), warped, x) * below

    return DiTAC()


def compiled(make):
    import torch

    return torch.compile(make(), dynamic=False)


class Rival(NamedTuple):
    """What is measured.

    Args:
        make: gives a module.
        ours: the name of the same in `training.activations.registry()`.
        package: that it needs.
    """

    make: Callable
    ours: str
    package: str = "torch"


RIVALS = {
    "ReLU of torch": Rival(relu, "relu"),
    "ReLU of torch.compile": Rival(lambda: compiled(relu), "relu"),
    "PAU of torch": Rival(pau, "pau"),
    "PAU of torch.compile": Rival(lambda: compiled(pau), "pau"),
    "rational-activations": Rival(rational_activations, "pau", "rational"),
    "DiTAC of difw": Rival(difw, "ditac", "difw"),
}


def cases(names, size):
    import torch

    x, dy = torch.randn(size // 64, 64), torch.randn(size // 64, 64)
    x.requires_grad_()
    found = {}
    for name in names:
        module = RIVALS[name].make()

        def forward(module=module):
            with torch.no_grad():
                return module(x)

        def forward_backward(module=module):
            y = module(x)
            return y, torch.autograd.grad(y, [x, *module.parameters()], dy)

        every = 1 if "ReLU" in name or "compile" in name else RARELY
        found[name, "forward"] = Case(forward, every)
        found[name, "forward + backward"] = Case(forward_backward, every)
    return found


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what packages and their compilers print is no answer

    def answer(value):
        print(json.dumps(value), flush=True, file=answers)

    names = [name for name, rival in RIVALS.items() if importlib.util.find_spec(rival.package)]
    answer(names)
    for line in sys.stdin:
        request = json.loads(line)
        if "size" in request:
            clock = Clock(cases(names, request["size"]))
            answer(["ready"])
        else:
            answer([[*key, time] for key, time in clock.round(request["round"]).items()])


if __name__ == "__main__":
    main()
