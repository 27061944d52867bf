"""The demo's generator on FastAPI alone, a picture at a time: `uvicorn with_fastapi:app --workers N --port M`."""

from common import Generator
from fastapi import FastAPI, Response

app = FastAPI()
generator = Generator()


@app.post("/generate")
def generate(label: int) -> Response:
    return Response(generator([label])[0], media_type="image/png")
