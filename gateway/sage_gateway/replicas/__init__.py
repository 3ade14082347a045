"""The state of one replica, as pure functions; the I/O is in :mod:`sage_gateway.controlplane`.

``lifecycle`` is the state machine from STARTING to STOPPED, ``circuit_breaker`` the state machine
of its circuit, ``reconciler`` the difference between the wanted and the existing replicas.
"""
