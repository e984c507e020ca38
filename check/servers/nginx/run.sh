#!/bin/sh
# Runs nginx in the foreground: run.sh PORT BACKEND FOLDER
set -eu
folder="$3/nginx-$1"
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
sed "s|PORT|$1|; s|BACKEND|$2|; s|FOLDER|$folder|" "$(dirname "$0")/nginx.conf" >"$folder/nginx.conf"
exec nginx -e "$folder/error.log" -p "$folder" -c "$folder/nginx.conf"
