"""Folders of images as data sets: which files belong together, how they are loaded, what is wrong with them."""
