"""Sections: the pictures on the page of a pair, one file per kind."""
