"""`corereg reproduce`: the paper's experiments from end to end, with the published numbers alongside.

1. `protocol`: which pairs train, are searched on and are scored; the grid and the working point.
2. `runs`: the training runs behind the tables.
3. `run`: train, search R, score, write up.
4. `published`: the paper's tables; `report`, `pictures`: what people read; `totalsegmentator`: labels of RAD-ChestCT.
"""

from corereg.workflows.reproduce.protocol import PROTOCOLS, Protocol
from corereg.workflows.reproduce.run import reproduce

__all__ = ["PROTOCOLS", "Protocol", "reproduce"]
