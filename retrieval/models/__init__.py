"""Networks: images in, embeddings out.

backbones       networks without their head; the fingerprint
own_networks    whose word has a network's code run, and what it says of its input
weights         files of weights, read safely and laid in by name
folder/         the model folder: what training writes and embedding reads
network_input   pixels → what a network takes
model           load_model: a network that is called with images
embedder        a batch of images → embeddings
inference       precisions, and how a forward pass is cut
fusion          batch normalisation folded into convolutions
"""
