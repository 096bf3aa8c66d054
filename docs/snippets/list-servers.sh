curl -H "Authorization: Bearer YOUR_API_KEY" \
  https://plugged.in/api/servers
