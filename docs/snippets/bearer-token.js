const response = await fetch('https://plugged.in/api/servers', {
  headers: {
    'Authorization': 'Bearer pk_live_abc123...'
  }
});
