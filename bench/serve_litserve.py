"""LitServe with its defaults around an exported model, for bench/serve.py: its own queue, batches and workers.

python bench/serve_litserve.py infer/NAME PORT
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import litserve

import config
from system import machine

MAX_BATCH, MAX_WAIT_SECONDS = 16, 0.002


class Classifier(litserve.LitAPI):
    """Decoding, prediction and responses in LitServe's interface."""

    def setup(self, device):
        """Loads the exported model into this worker."""
        machine.prepare(config.load(overrides=["threads=1"]))
        from inference.predictor import ExportedModel

        self.model = ExportedModel(sys.argv[1], "cpu", 1, "auto")

    def decode_request(self, request):
        """Decodes a request into pixels."""
        from imaging.images import read_image

        return self.model.transform(read_image(request["files"].file.read(), 10**8))

    def batch(self, inputs):
        """Stacks pixels."""
        import numpy as np

        return np.stack(inputs)

    def predict(self, batch):
        """Runs the model once."""
        return self.model.predict(batch)

    def encode_response(self, row):
        """Returns the likeliest class."""
        best = int(row.argmax())
        return {"class": self.model.class_names[best], "probability": float(row[best])}


def main() -> None:
    """Serves POST /predict with a form file called files."""
    api = Classifier(max_batch_size=MAX_BATCH, batch_timeout=MAX_WAIT_SECONDS)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=machine.cores(), timeout=60)
    server.run(port=int(sys.argv[2]), host="127.0.0.1", generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
