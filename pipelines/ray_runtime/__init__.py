"""The cluster that a job runs on: all that knows Ray's nodes, doors and tasks.

session          session(): the only call of ray.init; what Ray raises, as our errors
cluster_options  which cluster, which of its nodes, how many to wait for; is anybody there?
nodes            what the nodes have, for plans
wait             until the nodes are there; what to show while actors start
auth             the token at the door
code_paths       which folders workers import code from
counter          counts that workers add to
decode_task      images decoded in a task that a bad one cannot take down for good

Loads nothing by itself: Ray takes a second.
"""
