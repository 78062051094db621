#!/bin/sh
# Starts the program with the packages installed in the first argument. Node
# reads the authority's certificate only when it starts.
packages=$1
shift
NODE_PATH=$packages/node_modules NODE_EXTRA_CA_CERTS=$MILLRACE_CA_FILE exec node main.js "$@"
