"""Muon for the matrices of the layers, AdamW for the embedding and the norms."""

from collections import defaultdict

import torch
from torch import Tensor, nn

# Coefficients of the quintic Newton-Schulz iteration of Muon: fast towards singular values near one, not exact.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalized(stack: Tensor, steps: int = 5) -> Tensor:
    """Push all singular values of each matrix in ``stack`` [n, rows, columns] towards one."""
    wide = stack.size(-2) > stack.size(-1)
    x = stack.mT if wide else stack
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return (x.mT if wide else x).float()


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalized. Matrices of one shape are handled in one stack."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": 0.01})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # it takes no closures
        """Update every matrix once."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                shapes[parameter.shape].append(parameter)
            for parameters in shapes.values():
                self._step_stack(parameters, group)

    def _step_stack(self, parameters: list[nn.Parameter], group: dict[str, float]) -> None:
        lookahead = []
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
            momentum = self.state[parameter]["momentum"]
            gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            momentum.lerp_(gradient, 1 - group["momentum"])
            lookahead.append(gradient.lerp(momentum, group["momentum"]))
        rows, columns = parameters[0].shape
        scale = group["lr"] * max(1.0, rows / columns) ** 0.5
        for parameter, update in zip(parameters, orthogonalized(torch.stack(lookahead)), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)


def make_optimizers(model: nn.Module, matrix_lr: float, other_lr: float) -> list[torch.optim.Optimizer]:
    """The two optimizers; each group remembers its full learning rate as ``initial_lr``."""
    matrices = [one for name, one in model.named_parameters() if one.ndim == 2 and "embed" not in name]
    known = {id(one) for one in matrices}
    others = [one for one in model.parameters() if id(one) not in known]
    optimizers = [
        Muon(matrices, lr=matrix_lr),
        torch.optim.AdamW(others, lr=other_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers
