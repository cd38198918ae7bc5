"""The jobs on Ray, and the command line on top.

cluster     session(): the only call of ray.init
progress    one line on a terminal while a job runs
ray_address is anybody there? asked without loading Ray
tally       a count that workers add to
scan        the first pass over labelled photos
augment     photos → augmented photos
train       photos → a model folder
embed       photos → index
rank        queries × gallery → ranking
evaluate    ranking → figures
report      ranking → an HTML page
demo        a drawn gallery through all of them
experiment  the paper's table, trained and measured
cli         the commands, one file each
"""
