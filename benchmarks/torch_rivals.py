"""PAUs of PyTorch, measured in a process of their own: its Python need not have TensorFlow or JAX.

`benchmarks.activations --torch_python=…` starts `python -m benchmarks.torch_rivals` and writes
one request in JSON on each line of its standard input; each gets one line of JSON as the answer:

    {"size": n}                        ["ready"]; inputs of n numbers are made, all is compiled
    {"round": i}                       [[name, pass, seconds], …] of that round of its clock

The first line that it writes says what it measures: names of `RIVALS` that can be imported.
"""

import importlib.util
import json
import sys

from benchmarks.clock import Case, Clock

# The slow ones take part in every so-manieth round.
RARELY = 5


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


def compiled(make):
    import torch

    return torch.compile(make(), dynamic=False)


# What is measured; each has the package that it needs.
RIVALS = {
    "ReLU of torch": ("torch", relu),
    "ReLU of torch.compile": ("torch", lambda: compiled(relu)),
    "PAU of torch": ("torch", pau),
    "PAU of torch.compile": ("torch", lambda: compiled(pau)),
    "rational-activations": ("rational", rational_activations),
}


def cases(names, size):
    import torch

    x, dy = torch.randn(size // 64, 64), torch.randn(size // 64, 64)
    x.requires_grad_()
    found = {}
    for name in names:
        module = RIVALS[name][1]()

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
    names = [name for name, (package, _) in RIVALS.items() if importlib.util.find_spec(package)]
    answer(names)
    for line in sys.stdin:
        request = json.loads(line)
        if "size" in request:
            clock = Clock(cases(names, request["size"]))
            answer(["ready"])
        else:
            answer([[*key, time] for key, time in clock.round(request["round"]).items()])


def answer(value):
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
