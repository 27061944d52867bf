"""A server's URL in, the same picture twice out, one a line in base64: by /generate, and in OpenAI's words."""

# pyright: reportMissingImports=false, reportMissingModuleSource=false
# It runs in .tools/python.

import sys

from generated import Client
from generated.api.generate import generate
from generated.api.openai import openai_generate_images
from generated.models import GenerateFormat, Images, ImagesResponse, OpenaiGenerateImagesBody, Problem

with Client(base_url=sys.argv[1]) as client:
    one = generate.sync(client=client, model="digits", label="2", seed="7", format_=GenerateFormat.JSON)
    assert isinstance(one, Images)
    print(one.images[0].png)

    asked = OpenaiGenerateImagesBody(prompt="2", model="digits", seed=7, n=2)
    several = openai_generate_images.sync(client=client, body=asked)
    assert isinstance(several, ImagesResponse)
    assert [image.seed for image in several.data] == ["7", "8"]
    print(several.data[0].b64_json)

    refused = generate.sync(client=client, model="digits", n=0)
    assert isinstance(refused, Problem)
    assert refused.field == "n"
