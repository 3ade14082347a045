"""The control plane: which models and replicas are wanted, and the processes that run for them.

``pool`` owns the wanted state and the models; ``replica_factory`` creates a model from its spec.
``replica_supervisor`` runs one replica, with ``readiness_probe`` as its last check before READY.
``engine_state`` records running engines on disk; ``adoption`` takes them over after a gateway was
killed.
"""
