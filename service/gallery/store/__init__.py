"""The store of a gallery: what it knows of its images, its folders and its jobs, behind one protocol."""
