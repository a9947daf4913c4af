"""Fits the generator's last layer by least squares, once flow matching is done.

Small steps find the last layer slowly: after 24,000 of them a head still moved a third of the way that its control
says. Least squares finds the best last layer for the features there are, in a minute: of each frame, the head's
normalised features and the activated sum of condition and time, which its shift is made of.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..drawn.head import MOTION
from .generator_tasks import FlowTask

# all but mouth and blinks, which are best near the median of what they may be
FITTED = [MOTION.index(name) for name in MOTION if not name.startswith("mouth") and name != "blink"]
RIDGE = 1e-3  # of the features' mean square


@torch.no_grad()
def fit_readout(task: FlowTask, batches: Iterator[dict[str, Tensor]], count: int, seed: int = 0) -> Tensor:
    """Changes the last layer of the task's generator in place, for the least squared error on `count` batches.

    Returns the share of each value's squared error that this removes, (motion_size,); 0 for values not in FITTED.
    """
    flow, seen = task.generator.flow, {}
    linear, shift = flow.head.linear, flow.head.adaLN_modulation[1]
    width, values = linear.in_features, linear.out_features
    hooks = [
        linear.register_forward_hook(lambda module, inputs, output: seen.update(features=inputs[0])),
        flow.condition.register_forward_hook(lambda module, inputs, output: seen.update(condition=output)),
        flow.time.register_forward_hook(lambda module, inputs, output: seen.update(time=output)),
    ]
    products = torch.zeros(2 * width + 1, 2 * width + 1, dtype=torch.float64)
    answers = torch.zeros(2 * width + 1, values, dtype=torch.float64)
    before = torch.zeros(values, dtype=torch.float64)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for _ in range(count):
                velocity, target, _ = task.velocities(next(batches))
                condition = F.silu(seen["condition"] + seen["time"][:, None])[:, -target.shape[1] :]
                ones = torch.ones(*target.shape[:2], 1)
                rows = torch.cat([seen["features"], condition, ones], dim=2).flatten(0, 1).double()
                missing = (target - velocity).flatten(0, 1).double()
                products += rows.T @ rows
                answers += rows.T @ missing
                before += missing.square().sum(0)
    finally:
        for hook in hooks:
            hook.remove()
    ridge = RIDGE * products.diagonal().mean() * torch.eye(len(products))
    change = torch.zeros_like(answers)
    change[:, FITTED] = torch.linalg.solve(products + ridge, answers[:, FITTED])
    linear.weight += change[:width].T.to(linear.weight)
    linear.bias += change[-1].to(linear.bias)
    # the shift reaches the output through the last layer: the smallest change of it that adds these velocities
    shift.weight[:width] += (torch.linalg.pinv(linear.weight.double()) @ change[width:-1].T).to(shift.weight)
    removed = 2 * (change * answers).sum(0) - (change * (products @ change)).sum(0)
    return (removed / before.clamp_min(1e-12)).float()
