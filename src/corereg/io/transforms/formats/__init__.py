"""The transform files of other tools, one module per tool. Their conventions are undone here and nowhere else."""
