"""Report: pages, tables and figures that people read."""
