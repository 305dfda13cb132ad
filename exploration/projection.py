"""All images in two dimensions, to look at."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

# t-SNE shows neighbourhoods, which two principal components do not, and takes seconds for so many images.
MOST = 3000
# Dimensions that t-SNE begins with, and its perplexity at most: its authors' values.
DIMENSIONS, PERPLEXITY = 50, 30
# Half of the usual number: the picture hardly changes after it.
ITERATIONS = 500


def project(features: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """Places images in the unit square.

    Args:
        features: float32 [N, D], normalised.

    Returns:
        float64 [N, 2] in 0..1, and how: "t-SNE" for up to MOST images, else "PCA".

    Source: L. van der Maaten, G. Hinton, Visualizing Data using t-SNE, JMLR 9, 2008.
    """
    count = len(features)
    method = "t-SNE" if 8 <= count <= MOST else "PCA"
    reduced = PCA(min(DIMENSIONS, *features.shape), random_state=seed, svd_solver="auto").fit_transform(features)
    if method == "t-SNE":
        perplexity = min(PERPLEXITY, (count - 1) / 3)
        reduced = TSNE(init="pca", perplexity=perplexity, max_iter=ITERATIONS, random_state=seed).fit_transform(reduced)
    places = np.zeros((count, 2))
    places[:, : reduced.shape[1]] = reduced[:, :2]
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.maximum(high - low, 1e-12), method
