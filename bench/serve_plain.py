"""A minimal server, for bench/serve.py: FastAPI, one predictor, one request at a time.

python bench/serve_plain.py infer/NAME PORT
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> None:
    """Serves POST /predict with a form file called files."""
    import uvicorn
    from fastapi import FastAPI, UploadFile

    import config
    from system import machine

    settings = config.load()
    machine.prepare(settings)
    from imaging.images import read_image
    from inference.predictor import ExportedModel

    model = ExportedModel(sys.argv[1], "cpu", machine.threads(settings), "auto")
    app = FastAPI()

    @app.post("/predict")
    async def predict(files: UploadFile):
        image = read_image(await files.read(), 10**8)
        row = model.predict(model.transform(image)[None])[0]
        best = int(row.argmax())
        return {"class": model.class_names[best], "probability": float(row[best])}

    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")


if __name__ == "__main__":
    main()
