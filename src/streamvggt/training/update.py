"""Update of the weights after the backward passes of a step."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from streamvggt.model.names import original_name
from streamvggt.model.tensor_check import AUXILIARY_PREFIX
from streamvggt.model.vggt import VGGT
from streamvggt.training.acceleration import is_sharded
from streamvggt.training.optim import OptimConfig


class Update:
    """Clip the gradients, run the optimizer and update the moving average. Skip steps with non-finite numbers.

    Args:
        network: The network on its device, not wrapped for distribution.
        optim: Optimizer settings.
        accelerator: Wraps the network and the optimizer for distribution.
        ema_decay: Decay of the moving average of the weights. None: no average.

    Attributes:
        model: The wrapped network.
        optimizer: The wrapped optimizer.
        ema: Moving average of the weights, or None.
        nonfinite_steps: Number of consecutive steps with a non-finite loss or gradient.
        num_nonfinite: Number of all such steps.

    Raises:
        ValueError: If a moving average is requested of a sharded network.
    """

    def __init__(self, network: VGGT, optim: OptimConfig, accelerator: Accelerator, ema_decay: float | None = None):
        if ema_decay is not None and is_sharded(accelerator):
            raise ValueError("ema_decay: not supported for sharded networks (FSDP).")
        self.network, self.clip_norm, self.accelerator = network, optim.clip_norm, accelerator
        optimizer = optim.build(network, fused=accelerator.device.type in ("cpu", "cuda"))
        self.ema = None
        if ema_decay is not None:
            self.ema = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
        self.model, self.optimizer = accelerator.prepare(network, optimizer)
        self.clip_groups = optim.clip_groups(self.model)
        self.nonfinite_steps = self.num_nonfinite = 0

    def clip(self) -> Tensor:
        """Clip the gradients. Return the norm of all gradients before clipping."""
        first, *apart = self.clip_groups
        norms = [self.accelerator.clip_grad_norm_(first, self.clip_norm)]  # also removes the loss scale
        norms += [nn.utils.clip_grad_norm_(parameters, self.clip_norm) for parameters in apart]
        norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
        return torch.stack([norm.to(self.accelerator.device) for norm in norms]).norm()

    def step(self, norm: Tensor, loss: Tensor) -> None:
        """Run the optimizer step if loss and gradients are finite. All processes decide from the same numbers.

        Args:
            norm: Norm of the gradients, a scalar.
            loss: Mean loss of all processes, a scalar.
        """
        loss_is_finite, is_finite = torch.stack([loss, loss + norm]).isfinite().tolist()
        scaler = self.accelerator.scaler
        if is_finite or scaler is not None:  # the loss scaler skips the step itself and adapts its scale
            self.optimizer.step()
        self.optimizer.zero_grad()
        if is_finite:
            self.nonfinite_steps = 0
            if self.ema is not None:
                self.ema.update_parameters(self.network)
            return
        if loss_is_finite and scaler is not None and scaler.get_scale() >= 1:
            return  # float16 overflow: the loss scaler is adapting its scale
        self.nonfinite_steps += 1
        self.num_nonfinite += 1

    def weights(self) -> dict[str, Tensor]:
        """Return the weights by their names in the network, of the moving average if there is one.

        All processes must call this method. Weights of auxiliary losses are left out.
        """
        state = self.accelerator.get_state_dict(self.model) if self.ema is None else self.ema.module.state_dict()
        named = {original_name(name): tensor for name, tensor in state.items()}
        return {name: tensor for name, tensor in named.items() if not name.startswith(AUXILIARY_PREFIX)}

    def state_dict(self) -> dict[str, object]:
        """Return the state beside the weights and the optimizer: counters, loss scale, moving average."""
        scaler = self.accelerator.scaler
        return {
            "nonfinite_steps": self.nonfinite_steps,
            "num_nonfinite": self.num_nonfinite,
            "scaler": None if scaler is None else scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Load a state that `check_extra` accepts."""
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.ema is not None and state["ema"] is not None:
            self.ema.load_state_dict(state["ema"])
        self.nonfinite_steps, self.num_nonfinite = state["nonfinite_steps"], state["num_nonfinite"]
