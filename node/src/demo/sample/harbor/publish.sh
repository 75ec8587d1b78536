echo "publishing $(git rev-parse --short HEAD) of $REPO_OWNER/$REPO_NAME"
ls ships > "$ARTIFACTS/ships.txt"
