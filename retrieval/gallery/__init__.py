"""What there is to embed: the images of a gallery, by their addresses.

listing     a folder's or an address's images; labels
manifest    a table that lists them instead
labels      the rules by which an image has its label
"""
