"""Care of an index.

check           every byte of a version, and whether its parts agree
version_diff    what differs between two versions
restore         an old version's content as a new one
unneeded_files  what no version needs any more
vacuum          ... removed
"""
