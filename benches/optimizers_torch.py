"""PyTorch's CPU optimizers on the workloads of the optimizer bench, as a peer measured in the same run.

    pip install torch==2.15.0
    python optimizers_torch.py --workload a|b --rule adamw|lion|sgd --impl fused|foreach --threads 2 --seconds 2

Times `optimizer.step()` with fixed gradients, float32, and prints one JSON line:
{"impl", "rule", "workload", "median_ns", "min_ns", "steps", "torch"}; times are nanoseconds per step.
With `--paced` it measures, and prints a line, for each line that it reads.
PyTorch has no Lion: that prints {"impl": "none"}.
"""

import argparse
import json
import statistics
import sys
import time

WORKLOADS = {
    "a": [(5_000_000,)] * 5,
    "b": [(64, 64, 3, 3)] * 60 + [(64,)] * 120,
}


def stepper(workload, rule, impl, threads):
    """The optimizer's step, and the version of PyTorch."""
    import torch  # here, so that --help and a rule that PyTorch lacks need no PyTorch

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    parameters = []
    for shape in WORKLOADS[workload]:
        parameter = torch.nn.Parameter(torch.randn(shape, generator=generator))
        parameter.grad = torch.randn(shape, generator=generator) * 1e-2
        parameters.append(parameter)

    options = {impl: True}
    if rule == "adamw":
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, **options)
    else:
        optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, **options)

    return optimizer.step, torch.__version__


def measure(step, seconds):
    """Nanoseconds of each step within the time given, the first left out."""
    step()
    times = []
    end = time.perf_counter_ns() + int(seconds * 1e9)
    while not times or time.perf_counter_ns() < end:
        start = time.perf_counter_ns()
        step()
        times.append(time.perf_counter_ns() - start)
    return {"median_ns": round(statistics.median(times)), "min_ns": min(times), "steps": len(times)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=sorted(WORKLOADS), required=True)
    parser.add_argument("--rule", choices=["adamw", "lion", "sgd"], required=True)
    parser.add_argument("--impl", choices=["fused", "foreach"], required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--paced", action="store_true")
    arguments = parser.parse_args()
    if arguments.rule == "lion":
        print(json.dumps({"impl": "none"}))
        return
    what = {"impl": arguments.impl, "rule": arguments.rule, "workload": arguments.workload}
    step, version = stepper(**what, threads=arguments.threads)
    for _ in sys.stdin if arguments.paced else [""]:
        print(json.dumps({**what, **measure(step, arguments.seconds), "torch": version}), flush=True)


if __name__ == "__main__":
    main()
