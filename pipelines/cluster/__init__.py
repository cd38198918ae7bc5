"""The cluster that a job runs on.

session     session(): the only call of ray.init; what Ray raises, as our errors
site        which cluster, which of its nodes, how many to wait for
nodes       what the nodes have, for plans
waiting     until the nodes are there; what to show while actors start
tokens      the token at the door
temp_folder where a Ray of this process keeps its sockets and logs
ray_address is anybody there? asked without loading Ray

Loads nothing by itself: Ray takes a second.
"""
