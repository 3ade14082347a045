"""Capacity: whether the models of a pool fit this machine.

``memory_budget`` compares threads and memory of all replicas with the machine or ``budget``;
``model_size`` reads the size of weights and KV cache, ``gpu`` the memory of the GPUs.
"""
