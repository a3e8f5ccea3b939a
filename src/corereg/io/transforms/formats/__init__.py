"""The transform files of other tools, one module for each tool. Their conventions are undone here and nowhere else."""
