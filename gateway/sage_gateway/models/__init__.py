"""The models of the pool at run time: replicas, queue, router and counters of each.

``model`` is one model, ``replica_slot`` one of its replicas with the process or session behind it,
``load`` the counters that the data plane increments and autoscaling reads,
``fingerprints`` what decides a model's vectors. Specs are in
:mod:`sage_gateway.config`; :mod:`sage_gateway.controlplane` creates the models from them.
"""
