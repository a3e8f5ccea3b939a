"""Points and meshes in and out."""
