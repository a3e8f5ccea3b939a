"""What the module runs in a process of its own."""  # noqa: N999 (Slicer names it so)
