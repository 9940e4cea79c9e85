#!/bin/sh
# The whole path on rendered images, from nothing to an exported query model and a report.
set -eu
out=${1:-demo}
data=facades:classes=100,images=16,size=48,seed=0
mkdir -p "$out"

echo "== 1. A gallery network (a company has one already)"
[ -f "$out/gallery.safetensors" ] || \
  querynas gallery train --data "$data" --backbone timm:resnet18 --resolution 48 --epochs 40 --out "$out/gallery.safetensors"

echo "== 2. The gallery space: every image embedded once, fixed from then on"
[ -d "$out/gallery" ] || \
  querynas gallery build --data "$data" --model "$out/gallery.safetensors" --views 4 --mixed 0 --out "$out/gallery"

echo "== 3. The search"
querynas search examples/facades.yaml --out "$out/run"

echo "== 4. The best model under a tenth of the gallery's MACs, as ONNX"
querynas export "$out/run" --best-under 9M --format onnx --out "$out/query.onnx"
querynas evaluate "$out/query.onnx" --gallery "$out/gallery" --data "$data"

echo "== 5. The report"
querynas report "$out/run"
