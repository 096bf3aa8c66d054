const response = await fetch('https://plugged.in/api/auth/keys', {
  method: 'POST',
  headers: {
    'Authorization': 'Bearer YOUR_EXISTING_KEY',
    'Content-Type': 'application/json'
  },
  body: JSON.stringify({
    name: 'Production Server',
    expires_at: '2025-12-31T23:59:59Z',
    scopes: ['read:servers', 'write:servers']
  })
});
