"""From a folder of images to figures and a page: notebook.py PHOTOS OUTPUT [MODEL].

PHOTOS has a folder for each class. MODEL is a folder that `retrieval-cli train` has made, a
network's name, or package.module:function; resnet18 by default. Without Ray, in one process.
"""

import sys
from pathlib import Path

import pandas as pd

import retrieval

photos, output = map(Path, sys.argv[1:3])
images = sorted(map(str, photos.glob("*/*.*")))
labels = [Path(image).parent.name for image in images]

model = retrieval.load_model(sys.argv[3] if len(sys.argv) > 3 else "resnet18")
vectors = model.encode(images)

# Each image is a query among all others.
k = min(10, len(images) - 1)
ranking = retrieval.rank(
    vectors, vectors, k, query_ids=images, gallery_ids=images, exclude_self=True
)
side = pd.DataFrame({"image_id": images, "label": labels, "uri": images})
figures = retrieval.evaluate(ranking, side, side)
print(model, ranking, figures.top, figures.map, sep="\n")

ranking.save(output / "ranking")
retrieval.report(ranking, output / "page.html", queries=side, gallery=side)
print(ranking.to_pandas().head(10))
