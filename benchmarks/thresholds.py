"""How near real images come to the lines that copies and shortcuts are told by.

    python benchmarks/thresholds.py [SET ...]      # sets below $STILLROOM_DATA

For copies (SIMILAR of data/duplicates.py, SAME of data/moved.py) the pairs of each set by how alike they are, with both lines
at .9: those above .975 are called copies, and the highest below it is how near the line anything else comes. What copies
reach that are known to be ones, benchmarks/copies.py tells. For shortcuts (DISTANCE of data/shortcuts.py and those below it)
the largest distance between a class and the others in each property, as far as it is no chance.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from copies import FILES, MEDMNIST, read, thumbnail
from warnings_on_real_sets import loaded

from stillroom.data import duplicates, moved, shortcuts
from stillroom.data.load import Dataset


def copies(name: str) -> str:
    shown = np.stack([thumbnail(image) for image in read(name)])
    pairs = duplicates.find_pairs(np.arange(len(shown)).astype(str), shown)
    cells = []
    for kind, line in (("near", duplicates.SIMILAR), ("moved", moved.SAME)):
        alike = np.sort(pairs.similarity[pairs.kinds == kind])
        above, below = alike[alike >= 0.975], alike[alike < 0.975]
        cells.append(f"{len(above)} | {below[-1]:.3f}" if len(below) else f"{len(above)} | below {line:g}")
    return f"| {name} | {len(shown):,} | {' | '.join(cells)} |"


def classes(name: str, found: Dataset) -> str:
    every = shortcuts.find_shortcuts(found.table, found.store)
    reached = {shortcut.property: abs(shortcut.inside - shortcut.outside) for shortcut in every}
    return f"| {name} | {', '.join(f'{what} {far:.2f}' for what, far in reached.items()) or 'nothing beyond chance'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=[*FILES, *MEDMNIST])
    names = parser.parse_args().sets
    everything = list(loaded(64, Path(os.environ["STILLROOM_DATA"])))
    duplicates.SIMILAR, moved.SAME = 0.9, 0.9
    print("| Set | Images | near pairs | next | moved pairs | next |\n|---|---:|---:|---:|---:|---:|")
    for name in names:
        print(copies(name), flush=True)
    every = shortcuts._properties
    shortcuts._properties = lambda *of: [replace(one, least=0.0) for one in every(*of)]
    print("\n| Set | Largest distance by property |\n|---|---|")
    for name, found in everything:
        if name in names:
            print(classes(name, found), flush=True)


if __name__ == "__main__":
    main()
