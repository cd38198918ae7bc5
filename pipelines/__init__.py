"""The jobs on Ray, and the command line on top.

cluster     session(): the only call of ray.init
site        which cluster, which of its nodes, how many to wait for
nodes       what the nodes have, for plans
waiting     until the nodes are there
progress    one line while a job runs, on a terminal or in a log
ray_address is anybody there? asked without loading Ray
tokens      the token at the door
metrics     what a run tells Prometheus
tally       counts that workers add to
forecast    what a job needs from each node, for --dry-run
scan        the first pass over labelled photos
augment     photos → augmented photos
train       photos → a model folder
embed       photos → index
rank        queries × gallery → ranking
evaluate    ranking → figures
report      ranking → an HTML page
demo        a drawn gallery through all of them
experiment  the paper's table, trained and measured
submit      any verb as a job of Ray's job server
cli         the commands, one file each
"""
