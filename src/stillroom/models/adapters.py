"""Low-rank adapters (LoRA): a large network learns by few new weights beside its own, which stand still.

Beside a weight ``W`` of its attention stands ``B A`` of rank ``r``, ``B`` starting at 0, and the layer answers with
``W + (alpha / r) B A`` (Hu et al. 2022, arXiv:2106.09685). Here ``alpha = r``, as in the image classification guide of peft,
so that the factor is 1 whatever the rank. All that is trained is ``A``, ``B`` and the head: no gradients and no moments are
held of the rest.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stillroom.errors import UsageError
from stillroom.models.network import Network
from stillroom.models.taps import classifiers


def adapt(network: Network, rank: int, seed: int) -> None:
    """Put adapters beside every linear layer of the network's attention, and let nothing but them and the head be trained.

    Args:
        network: changed in place, until :func:`merge`.
        rank: of the adapters, at least 1.
        seed: decides their first weights.

    Raises:
        UsageError: it has no such layers, or peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UsageError("--teacher-lora needs peft: install it with `pip install 'stillroom[peft]'`.") from None
    layers = _attention_layers(network)
    if not layers:
        raise UsageError(
            f"{network.name} has no linear layers of attention to put low-rank adapters beside. Leave out --teacher-lora, or "
            "choose a transformer."
        )
    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, bias="none", target_modules=layers)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(config, network.backbone)
    device = network.mean.device
    network.to(device)
    for layer in classifiers(network.backbone):
        layer.requires_grad_(True)
    network.adapters = rank


def merge(network: Network) -> None:
    """Add every adapter to the weight beside which it stands, so that an ordinary network is left. It may have none."""
    if not network.adapters:
        return
    adapted: list[tuple[str, Any]] = [(n, m) for n, m in network.backbone.named_modules() if hasattr(m, "lora_A")]
    for name, module in adapted:
        module.merge()
        network.backbone.set_submodule(name, module.get_base_layer())
    del network.backbone.peft_config
    network.requires_grad_(True)
    network.adapters = 0


def learnt(network: nn.Module) -> dict[str, Tensor]:
    """The state that training changes: all of it, or of a network with adapters what does not stand still."""
    state = network.state_dict()
    if not getattr(network, "adapters", 0):
        return state
    still = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in state.items() if name not in still}


def take_up(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a network the state that :func:`learnt` told. Raises RuntimeError where it is another's."""
    own = learnt(network)
    if own.keys() != state.keys():
        raise RuntimeError(f"The state has {len(state)} tensors, of which {len(own.keys() & state.keys())} are known.")
    network.load_state_dict(state, strict=False)


def _attention_layers(network: Network) -> list[str]:
    """Linear layers that stand in a module of attention, and that it calls: some are asked for their weights alone."""
    named = dict(network.backbone.named_modules())
    found = [name for name, module in named.items() if isinstance(module, nn.Linear) and _is_attention(named, name)]
    called: set[str] = set()
    handles = [named[name].register_forward_hook(lambda *_, name=name: called.add(name)) for name in found]
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            network.eval()(network.mean.new_zeros(1, 3, *network.input_size))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return [name for name in found if name in called]


def _is_attention(named: dict[str, nn.Module], name: str) -> bool:
    parent = name.rpartition(".")[0]
    return "attn" in parent.rpartition(".")[2].lower() or "attention" in type(named[parent]).__name__.lower()
