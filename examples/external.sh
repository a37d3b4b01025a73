#!/bin/sh
# Train trials of the family `external` with curl and jq alone: ./external.sh [URL]
set -eu
url=${1:-http://127.0.0.1:8000}
post() { curl -sS --fail-with-body -H 'Content-Type: application/json' -d "$2" "$url$1"; }

study=$(post /v1/studies '{"name": "by-curl-'$$'", "model": {"family": "external"}, "budget": {"trials": 5},
  "hyperparameters": {"x": {"type": "float", "low": -2.0, "high": 2.0}}, "objectives": [{"metric": "loss"}]}' | jq -r .id)
while true; do
  asked=$(post "/v1/studies/$study/trials:ask" '{"lease_seconds": 30, "worker": "curl"}')
  [ "$(printf %s "$asked" | jq '.items | length')" -gt 0 ] || break
  number=$(printf %s "$asked" | jq '.items[0].number')
  token=$(printf %s "$asked" | jq -r '.items[0].lease.token')
  loss=$(printf %s "$asked" | jq '.items[0].hyperparameters.x | . * .')
  post "/v1/studies/$study/trials/$number:report" "{\"lease_token\": \"$token\", \"epoch\": 0, \"metrics\": {\"loss\": $loss}}" >/dev/null
  post "/v1/studies/$study/trials/$number:tell" "{\"lease_token\": \"$token\", \"state\": \"COMPLETE\"}" | jq -c '{number, state, values}'
done
curl -sS "$url/v1/studies/$study" | jq -c '{state, best}'
