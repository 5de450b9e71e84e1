"""The PyPI package webuiapi against a running studio: python webui.py PORT SIDE MODEL; prints one JSON object."""
import json
import sys
import threading
import time

import webuiapi
from PIL import Image

port, side, model = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
api = webuiapi.WebUIApi(host="127.0.0.1", port=port, sampler="Euler", steps=2)
size = {"width": side, "height": side}
drawn = api.txt2img(prompt="a cat", negative_prompt="a dog", seed=3, batch_size=2, cfg_scale=2,
                    alwayson_scripts={"miro": {"args": [{"clip_score": 0.5}]}}, **size)
over = api.img2img(images=[drawn.image], prompt="a dog", seed=4, denoising_strength=0.5, **size)
mask = Image.new("L", (side, side), 0)
mask.paste(255, (0, 0, side // 2, side))
painted = api.img2img(images=[drawn.image], mask_image=mask, mask_blur=0, prompt="a dog", seed=4, **size)
read = api.png_info(drawn.images[1])

result = {}


def wait():
    result["long"] = api.txt2img(prompt="a cat", steps=50_000, seed=1, **size)


thread = threading.Thread(target=wait)
thread.start()
while True:
    progress = webuiapi.WebUIApi(host="127.0.0.1", port=port).get_progress()
    if progress["progress"] > 0:
        break
    time.sleep(0.02)
webuiapi.WebUIApi(host="127.0.0.1", port=port).interrupt()
thread.join(60)
api.util_wait_for_ready(check_interval=0.05)
api.util_set_model(model)
print()  # util_set_model prints too
print(json.dumps({
    "seeds": drawn.info["all_seeds"],
    "sizes": [image.size for image in drawn.images + over.images + painted.images],
    "infotext": drawn.info["infotexts"][1],
    "png_info": read.info,
    "denoising_strength": over.info["denoising_strength"],
    "samplers": api.util_get_sampler_names(),
    "schedulers": api.util_get_scheduler_names(),
    "progress": progress["progress"],
    "interrupted": result["long"].info["interrupted"],
    "model": api.util_get_current_model(),
}))
