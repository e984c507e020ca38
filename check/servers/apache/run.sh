#!/bin/sh
# Runs Apache in the foreground: run.sh PORT BACKEND FOLDER
set -eu
mkdir -p "$3/apache-$1"
FOLDER=$(cd "$3/apache-$1" && pwd)
export FOLDER PORT="$1" BACKEND="$2"
exec apache2 -D FOREGROUND -f "$(cd "$(dirname "$0")" && pwd)/apache.conf"
