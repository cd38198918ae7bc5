"""The jobs: one file each, on Ray, and the command line on top.

cluster    connect(): the only call of ray.init
progress   one line on a terminal while a job runs
embed      photos → index
rank       queries × gallery → ranking
evaluate   ranking → figures
report     ranking → an HTML page
demo       a drawn gallery through all of them
cli        the commands, one file each
"""
