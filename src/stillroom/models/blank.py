"""Networks whose weights will all be read: built without drawing random ones first, which takes long and is thrown away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook


def build_blank(build: Callable[[], nn.Module]) -> nn.Module:
    """What ``build`` gives, its parameters holding whatever lay in memory. Buffers are computed as ever.

    A parameter has no memory while the network is built, so that drawing it costs nothing, and gets some afterwards, which is
    not touched before it is written to. Where a network computes something from its parameters it cannot be built so, and
    is built in the ordinary way.
    """
    handle = register_module_parameter_registration_hook(_without_memory)
    try:
        network = build()
    except (NotImplementedError, RuntimeError):
        network = None  # it read a parameter, which has no values yet; any other failure comes again below
    finally:
        handle.remove()
    if network is None or _lacks_more_than_parameters(network):
        return build()
    _give_memory(network)
    return network


def _lacks_more_than_parameters(network: nn.Module) -> bool:
    """Whether it made something where its parameters were, which is nowhere."""
    attributes = [value for module in network.modules() for value in vars(module).values()]
    return any(tensor.is_meta for tensor in [*network.buffers(), *attributes] if isinstance(tensor, torch.Tensor))


def _without_memory(module: nn.Module, name: str, parameter: nn.Parameter | None) -> Any:
    if parameter is None or parameter.is_meta:  # one that two modules share comes by twice
        return parameter
    return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)


def _give_memory(network: nn.Module) -> None:
    given: dict[int, nn.Parameter] = {}
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                if id(parameter) not in given:
                    room = torch.empty(parameter.shape, dtype=parameter.dtype)
                    given[id(parameter)] = nn.Parameter(room, requires_grad=parameter.requires_grad)
                module._parameters[name] = given[id(parameter)]
