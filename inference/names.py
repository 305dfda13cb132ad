"""Names of the files that export.py writes."""

GRAPH, OLD_GRAPH, WEIGHTS = "inference.json", "inference.pdmodel", "inference.pdiparams"
DESCRIPTION, EXAMPLE, CARD = "inference.yml", "example.json", "MODEL_CARD.md"
