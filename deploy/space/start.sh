#!/bin/sh
# The Hub's proxy stands in front of the Space: its name is the one that browsers send. The Hub shows the page in a
# frame.
exec miro studio --host 0.0.0.0 --insecure --output "${MIRO_OUTPUT:-/data/pictures}" --model "${MIRO_MODEL:-miro-emoji}" \
  ${SPACE_HOST:+--allow-origin "https://$SPACE_HOST" --allow-frame https://huggingface.co} "$@"
