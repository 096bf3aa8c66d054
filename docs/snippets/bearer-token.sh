curl "https://plugged.in/api/servers" \
  -H "Authorization: Bearer pk_live_abc123..."
