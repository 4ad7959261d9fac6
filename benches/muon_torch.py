"""Muon of PyTorch, pytorch-optimizer and timm, and SOAP and Shampoo of pytorch-optimizer and heavyball, on the matrices of the bench,
as peers measured in the same run.

    pip install torch==2.15.0 pytorch-optimizer==4.1.0 timm==1.0.31 heavyball==3.2.1
    python muon_torch.py --workload resnet18|gpt --rule muon --impl torch|kozistr|kozistr_gram|timm --threads 2 --seconds 2
    python muon_torch.py --workload resnet18|gpt --rule soap --impl kozistr|heavyball --period 10
    python muon_torch.py --workload resnet18|gpt --rule shampoo --impl kozistr --period 10

All Muons iterate in bfloat16; here in float32, in which a CPU is faster and ours runs too. Times `optimizer.step()` with fixed
gradients and prints one JSON line: {"impl", "rule", "workload", "median_ns", "min_ns", "steps"}; times are nanoseconds per step, each
the mean of `--period` steps. With `--paced` it measures, and prints a line, for each line that it reads. `kozistr_gram` is
pytorch-optimizer's iteration on the Gram matrix, an option there. Its Shampoo has roots by singular values: the other way takes
minutes for these matrices.
"""

import argparse
import functools
import json
import statistics
import sys
import time

WORKLOADS = {
    "resnet18": [(64, 147)] + [(64, 576)] * 4 + [(128, 576)] + [(128, 1152)] * 3 + [(128, 64), (256, 1152)]
                + [(256, 2304)] * 3 + [(256, 128), (512, 2304)] + [(512, 4608)] * 3 + [(512, 256)],
    "gpt": [(192, 576), (192, 192), (192, 768), (768, 192)] * 12,
}
IMPLS = {"muon": ["torch", "kozistr", "kozistr_gram", "timm"], "soap": ["kozistr", "heavyball"], "shampoo": ["kozistr"]}


class InFloat32:
    """The module torch, in which bfloat16 is float32."""

    def __getattr__(self, name):
        import torch
        return getattr(torch, "float32" if name == "bfloat16" else name)


def stepper(workload, rule, impl, threads):
    """The optimizer's step."""
    import torch  # here, so that --help needs no PyTorch

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    parameters = []
    for shape in WORKLOADS[workload]:
        parameter = torch.nn.Parameter(torch.randn(shape, generator=generator))
        parameter.grad = torch.randn(shape, generator=generator) * 1e-2
        parameters.append(parameter)

    if rule == "soap" and impl == "heavyball":
        import heavyball
        heavyball.utils.compile_mode = None
        optimizer, grads = heavyball.SOAP(parameters, lr=3e-3), [parameter.grad for parameter in parameters]

        def step():  # which takes the gradients away
            for parameter, grad in zip(parameters, grads):
                parameter.grad = grad
            optimizer.step()

        return step
    if rule == "soap":
        import pytorch_optimizer
        return pytorch_optimizer.SOAP(parameters, lr=3e-3).step
    if rule == "shampoo":
        from pytorch_optimizer import ScalableShampoo
        return ScalableShampoo(parameters, lr=1e-3, start_preconditioning_step=1, preconditioning_compute_steps=10,
                               graft_type=3, use_svd=True).step
    if impl == "torch":
        import torch.optim._muon as muon
        muon.torch = InFloat32()
        return torch.optim.Muon(parameters, lr=1e-3).step
    if impl == "timm":
        import timm.optim.muon as muon
        muon.zeropower_via_newtonschulz = functools.partial(muon.zeropower_via_newtonschulz, dtype=torch.float32)
        return muon.Muon(parameters, lr=1e-3, nesterov=True).step
    import pytorch_optimizer.optimizer.muon.base as base
    for name in ["zero_power_via_newton_schulz_5", "zero_power_via_gram_newton_schulz"]:
        setattr(base, name, functools.partial(getattr(base, name), dtype=torch.float32))
    from pytorch_optimizer import Muon
    method = "gram_newton_schulz" if impl == "kozistr_gram" else "newton_schulz"
    return Muon([{"params": parameters, "use_muon": True}], lr=1e-3, ns_method=method).step


def measure(step, seconds, period):
    """Nanoseconds of each step within the time given, the mean of each period, the first left out."""
    def steps():
        for _ in range(period):
            step()

    steps()
    times = []
    end = time.perf_counter_ns() + int(seconds * 1e9)
    while not times or time.perf_counter_ns() < end:
        start = time.perf_counter_ns()
        steps()
        times.append((time.perf_counter_ns() - start) // period)
    return {"median_ns": round(statistics.median(times)), "min_ns": min(times), "steps": len(times)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=sorted(WORKLOADS), required=True)
    parser.add_argument("--rule", choices=sorted(IMPLS), default="muon")
    parser.add_argument("--impl", choices=sorted({impl for impls in IMPLS.values() for impl in impls}), required=True)
    parser.add_argument("--period", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--paced", action="store_true")
    arguments = parser.parse_args()
    what = {"impl": arguments.impl, "rule": arguments.rule, "workload": arguments.workload}
    step = stepper(**what, threads=arguments.threads)
    for _ in sys.stdin if arguments.paced else [""]:
        print(json.dumps({**what, **measure(step, arguments.seconds, arguments.period)}), flush=True)


if __name__ == "__main__":
    main()
