"""Makes the picture of the first page from a run's learning curves, one file for light pages and one for dark ones.

    python experiments/results/picture.py OUT/learning_curves.svg docs-folder/NAME

The curves have both sets of colours, of which a browser takes the one that its own setting asks for. Where a page has a setting of
its own, as on a code host, `<picture>` chooses between the two files.
"""

import re
import sys
from pathlib import Path

source, name = Path(sys.argv[1]), sys.argv[2]
svg = source.read_text()
style = re.search(r"<style>@media \(prefers-color-scheme: dark\) \{\n(.*?)\}</style>\n", svg, re.S)
Path(f"{name}-light.svg").write_text(svg.replace(style[0], ""))
Path(f"{name}-dark.svg").write_text(svg.replace(style[0], f"<style>{style[1]}</style>\n"))
