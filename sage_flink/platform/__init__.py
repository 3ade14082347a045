"""The cluster and the local stack: where jobs run and how they are reached."""
