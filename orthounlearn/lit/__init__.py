"""Lightning: the module that trains a classifier, the loop of a loss method, the callbacks."""
