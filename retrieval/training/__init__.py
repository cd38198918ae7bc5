"""Fine-tuning a backbone: everything but how it is distributed.

splitting     which photos are held out, by source, so that no copy of one is trained on
sampling      the batches of an epoch, a function of (labels, seed, epoch)
photos        bytes → the pixels that training sees, augmented on the fly
objectives    losses and heads: cross-entropy, ArcFace, multi-similarity
network       backbone + objective; which weights learn
optimizer     optimizers, learning rate
epochs        one pass over the training photos, one over the validation photos
validation    retrieval among the validation photos
checkpoints   what is needed to go on
curves        the learning curves as a picture
"""
